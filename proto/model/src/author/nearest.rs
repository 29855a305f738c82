//! Which name was probably meant?

/// The name that is next to `wanted`, if one is near: at most a third of its letters differ.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_lowercase().replace(['_', '-', '.', ' '], "");
    let target = plain(wanted);
    let near = names.map(|name| (distance(&target, &plain(name)), name)).min()?;
    (near.0 * 3 <= target.chars().count().max(3)).then_some(near.1)
}

/// `; did you mean ...?`, or nothing.
pub(super) fn meant<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(wanted, names).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// Insertions, deletions and replacements from one to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_found_and_another_word_is_not() {
        let names = ["price", "product_type", "age"];
        assert_eq!(nearest("prise", names.into_iter()), Some("price"));
        assert_eq!(nearest("ProductType", names.into_iter()), Some("product_type"));
        assert_eq!(nearest("popularity", names.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
