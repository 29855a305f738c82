//! Which ad groups has a campaign, as people write it?
//!
//! JSON says `{"id": 3, "bid": "1.25", "paused": true}`, a CSV cell `3:1.25:paused|4:0.5|5`.

use super::LoadError;
use super::line::{bid_within, decimal, money};
use gavel_proto::delivery::{self, check_catalogue_groups};
use gavel_proto::wire;
use serde::Deserialize;

/// What a paused one is called in a cell.
const PAUSED: &str = "paused";

/// An ad group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupText {
    pub id: u64,
    #[serde(default, deserialize_with = "decimal")]
    pub bid: Option<String>,
    #[serde(default)]
    pub paused: bool,
}

/// An ad group of a CSV cell.
pub(super) fn group(text: &str) -> Result<GroupText, String> {
    let wrong = || format!("ad_groups {text:?}: write ID, ID:BID, ID:paused or ID:BID:paused, as 3:1.25:paused");
    let mut parts = text.trim().split(':').map(str::trim);
    let id = parts.next().and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
    let bid_of = |text: &str| Some(text.to_owned());
    let (bid, paused) = match (parts.next(), parts.next(), parts.next()) {
        (None, None, None) => (None, false),
        (Some(PAUSED), None, None) => (None, true),
        (Some(bid), None, None) => (bid_of(bid), false),
        (Some(bid), Some(PAUSED), None) => (bid_of(bid), true),
        _ => return Err(wrong()),
    };
    Ok(GroupText { id, bid, paused })
}

/// The ad groups of a campaign, checked, ascending by id.
pub(super) fn groups(texts: &[GroupText]) -> Result<Vec<wire::AdGroup>, String> {
    let mut groups = texts.iter().map(checked).collect::<Result<Vec<_>, _>>()?;
    check_catalogue_groups(&groups)?;
    groups.sort_unstable_by_key(|group| group.ad_group_id);
    Ok(groups)
}

/// The ad groups of a catalogue so far, with those of one more campaign.
pub(super) fn total(so_far: usize, campaign: &wire::Campaign) -> Result<usize, LoadError> {
    delivery::total_groups(so_far, campaign).map_err(|_| LoadError::AdGroups)
}

fn checked(text: &GroupText) -> Result<wire::AdGroup, String> {
    let of = |reason: String| format!("ad group {}: {reason}", text.id);
    let bid = money("bid", text.bid.as_deref()).and_then(|bid| bid.map(bid_within).transpose()).map_err(of)?;
    if bid == Some(0) {
        return Err(of("a bid of 0: leave it out for the campaign's, or pause the group".to_owned()));
    }
    Ok(wire::AdGroup { ad_group_id: text.id, bid_micros: bid.unwrap_or(0), paused: text.paused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::limits::{AD_GROUPS_MAX, CATALOGUE_AD_GROUPS_MAX};

    #[test]
    fn both_forms_say_the_same_and_wrong_ones_are_named() {
        let json = r#"[{"id":5},{"id":3,"bid":"1.25","paused":true},{"id":4,"bid":0.5},{"id":6,"paused":true}]"#;
        let from_json: Vec<GroupText> = serde_json::from_str(json).expect("JSON");
        let cell = "5|3:1.25:paused| 4:0.5|6:paused";
        let from_cell: Vec<GroupText> = cell.split('|').map(group).collect::<Result<_, _>>().expect("a cell");
        assert_eq!(from_json, from_cell);
        let read = groups(&from_json).expect("groups");
        assert_eq!(
            read.iter().map(|g| (g.ad_group_id, g.bid_micros, g.paused)).collect::<Vec<_>>(),
            [(3, 1_250_000, true), (4, 500_000, false), (5, 0, false), (6, 0, true)]
        );
        let wrong = |cell: &str| groups(&cell.split('|').map(group).collect::<Result<Vec<_>, _>>()?);
        for (cell, reason) in [
            ("", "write ID, ID:BID"),
            ("x", "write ID, ID:BID"),
            ("3:1:2", "write ID, ID:BID"),
            ("3:1:paused:", "write ID, ID:BID"),
            ("0", "an ad group's id is missing, or 0"),
            ("3|4|3", "ad group 3 is named twice"),
            ("3:0", "ad group 3: a bid of 0"),
            ("3:-1", "ad group 3: bid \"-1\": not a decimal number"),
            ("3:10001", "ad group 3: bid 10001.000000 is above the limit"),
        ] {
            let found = wrong(cell).expect_err(cell);
            assert!(found.contains(reason), "{cell}: {found}");
        }
        let many: Vec<GroupText> =
            (1..=AD_GROUPS_MAX as u64 + 1).map(|id| GroupText { id, ..GroupText::default() }).collect();
        assert!(groups(&many).expect_err("too many").contains("257 ad groups, at most 256"));
        assert_eq!(groups(&many[1..]).expect("as many as there may be").len(), AD_GROUPS_MAX);
    }

    #[test]
    fn a_catalogue_has_so_many_ad_groups() {
        let ad_groups = vec![wire::AdGroup::default(); 2];
        let campaign = wire::Campaign { ad_groups, ..wire::Campaign::default() };
        let full = total(CATALOGUE_AD_GROUPS_MAX - 2, &campaign).expect("as many as there may be");
        assert_eq!(full, CATALOGUE_AD_GROUPS_MAX);
        assert_eq!(total(full, &wire::Campaign::default()).expect("a campaign without any"), full);
        let told = total(full - 1, &campaign).expect_err("one too many").to_string();
        assert!(told.contains("more than 1048576 ad groups"), "{told}");
    }
}
