//! How often may a user see a campaign's ads, as people write it?
//!
//! JSON says `{"scope": "campaign", "window": "1d", "max": 3}`, a CSV cell `campaign:1d:3|ad:6h:1`.

use gavel_proto::frequency::{FrequencyRule, FrequencyScope, FrequencyWindow, impressions, rules_from_wire};
use gavel_proto::wire;
use serde::Deserialize;

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    pub scope: String,
    pub window: String,
    pub max: u32,
}

/// A rule of a CSV cell.
pub(super) fn rule(text: &str) -> Result<RuleText, String> {
    let wrong = || format!("frequency {text:?}: write SCOPE:WINDOW:MAX, as campaign:1d:3");
    let (scope, rest) = text.trim().split_once(':').ok_or_else(wrong)?;
    let (window, max) = rest.split_once(':').ok_or_else(wrong)?;
    let max = max.trim().parse().map_err(|_| wrong())?;
    Ok(RuleText { scope: scope.trim().to_owned(), window: window.trim().to_owned(), max })
}

/// The rules of a campaign, checked, in their order.
pub(super) fn rules(texts: &[RuleText]) -> Result<Vec<wire::FrequencyRule>, String> {
    let read = texts.iter().map(checked).collect::<Result<Vec<_>, _>>()?;
    let messages: Vec<wire::FrequencyRule> = read.into_iter().map(FrequencyRule::to_wire).collect();
    Ok(rules_from_wire(&messages)?.into_iter().map(FrequencyRule::to_wire).collect())
}

fn checked(text: &RuleText) -> Result<FrequencyRule, String> {
    let scope = FrequencyScope::parse(&text.scope);
    let scope = scope.ok_or_else(|| format!("scope {:?} is not one of ad, campaign, advertiser", text.scope))?;
    let window = FrequencyWindow::parse(&text.window);
    let window = window.ok_or_else(|| format!("window {:?} is not one of 1h to 24h, 1d, 7d, 30d", text.window))?;
    Ok(FrequencyRule { scope, window, max: impressions(text.max)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same_and_wrong_ones_are_named() {
        let json = r#"[{"scope":"campaign","window":"1d","max":3},{"scope":"ad","window":"6h","max":1}]"#;
        let from_json: Vec<RuleText> = serde_json::from_str(json).expect("JSON");
        let from_cell: Vec<RuleText> =
            "campaign:1d:3| ad:6h:1".split('|').map(rule).collect::<Result<_, _>>().expect("a cell");
        assert_eq!(from_json, from_cell);
        let rules_of = |texts: &[RuleText]| {
            let rules = rules(texts)?;
            Ok::<_, String>(rules.iter().map(|r| (r.scope, r.window_hours, r.max)).collect::<Vec<_>>())
        };
        assert_eq!(rules_of(&from_json), Ok(vec![(3, 6, 1), (1, 24, 3)]));
        let wrong = |cell: &str| rules_of(&[rule(cell)?]);
        for (cell, reason) in [
            ("campaign", "SCOPE:WINDOW:MAX"),
            ("campaign:1d", "SCOPE:WINDOW:MAX"),
            ("campaign:1d:x", "SCOPE:WINDOW:MAX"),
            ("group:1d:3", "not one of ad, campaign"),
            ("campaign:2d:3", "not one of 1h to 24h"),
            ("campaign:1d:0", "1 to 255"),
        ] {
            let found = wrong(cell).expect_err(cell);
            assert!(found.contains(reason), "{cell}: {found}");
        }
        let twice: Vec<RuleText> =
            ["ad:1d:3", "ad:24h:2"].map(rule).into_iter().collect::<Result<_, _>>().expect("cells");
        assert!(rules(&twice).expect_err("twice").contains("two frequency rules"));
    }
}
