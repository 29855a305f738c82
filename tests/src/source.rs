//! What does a source file contain, comments and strings apart?
//!
//! A small scanner, not a parser: it blanks comments, strings and character literals, keeps every line
//! where it was, and finds the production part and the functions by their braces. Enough for the checks of
//! `tidy`, which read our own formatted code and nothing else.

use std::collections::BTreeSet;

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// First line, 1-based.
    pub line: usize,
    /// Lines from the `fn` to its closing brace.
    pub lines: usize,
}

/// The text with comments, strings and character literals blanked; line breaks stay.
#[must_use]
pub fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip_literal(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that starts at `at`, or `at` when none does.
fn skip_literal(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let until = |needle: &[u8], from: usize| {
        rest[from..]
            .windows(needle.len())
            .position(|w| w == needle)
            .map_or(bytes.len(), |p| at + from + p + needle.len())
    };
    if rest.starts_with(b"//") {
        return rest.iter().position(|b| *b == b'\n').map_or(bytes.len(), |p| at + p);
    }
    if rest.starts_with(b"/*") {
        return until(b"*/", 2);
    }
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if !word_before && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
        let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let mut close = vec![b'"'];
            close.extend(std::iter::repeat_n(b'#', hashes));
            return until(&close, 2 + hashes);
        }
    }
    match rest[0] {
        b'"' => skip_quoted(bytes, at, b'"'),
        // A lifetime has no closing quote right after one character.
        b'\'' if rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'') => skip_quoted(bytes, at, b'\''),
        _ => at,
    }
}

fn skip_quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b if b == quote => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// The names that follow `crate::` in `code` (as of [`code_only`]), those of a group one by one.
#[must_use]
pub fn crate_names(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(members(group).iter().map(|member| first_name(member))),
            None => names.extend([first_name(rest)]),
        }
    }
    // After the last comma of a group stands nothing.
    names.remove("");
    names
}

/// The members of a group of imports, whose opening brace is left out.
fn members(group: &str) -> Vec<String> {
    let (mut members, mut member, mut depth) = (Vec::new(), String::new(), 1);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            members.push(std::mem::take(&mut member));
        } else {
            member.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    members
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The part of `code` (as of [`code_only`]) before its test module.
#[must_use]
pub fn production(code: &str) -> &str {
    let mut offset = 0;
    for line in code.split_inclusive('\n') {
        if line.trim() == "#[cfg(test)]" && code[offset + line.len()..].trim_start().starts_with("mod ") {
            let after = code[offset + line.len()..].trim_start();
            // `mod tests;` in its own file does not end the production part.
            if !after.lines().next().unwrap_or("").trim_end().ends_with(';') {
                return &code[..offset];
            }
        }
        offset += line.len();
    }
    code
}

/// Every function with a body in `code` (as of [`code_only`]).
#[must_use]
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[start..];
        let name: String = rest[3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(rest) {
            let line = code[..start].matches('\n').count() + 1;
            found.push(Function { name, line, lines: rest[..end].matches('\n').count() + 1 });
        }
    }
    found
}

/// The end of the body that starts in `text`, or `None` for a declaration.
fn body_end(text: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0usize, 0usize);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_blanked_and_lifetimes_stay() {
        let code = code_only("let a = \"{ \\\" \"; // {\nfn f<'a>(x: &'a str) -> char { '{' }\nlet r = r#\"{\"#;");
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert_eq!(code.matches('\n').count(), 2);
        assert!(code.contains("'a"));
    }

    #[test]
    fn functions_end_at_their_brace() {
        let found = functions("trait T { fn d(&self); }\nfn a(x: [u8; 3]) {\n  if x {\n  }\n}\n");
        assert_eq!(found, vec![Function { name: "a".into(), line: 2, lines: 4 }]);
    }

    #[test]
    fn groups_of_imports_are_named_one_by_one() {
        let code = "use crate::{a::{X, y::Z}, b,\n    c::d,\n};\nuse crate::e::F;\nfn g() { crate::h::i() }";
        assert_eq!(crate_names(code).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "e", "h"]);
    }

    #[test]
    fn production_ends_at_the_test_module() {
        assert_eq!(production("a\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
        assert_eq!(production("a\n#[cfg(test)]\nmod tests;\nb\n"), "a\n#[cfg(test)]\nmod tests;\nb\n");
    }
}
