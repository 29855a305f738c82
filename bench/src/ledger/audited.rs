//! What do the journals of all voters say, token by token?
//!
//! The operator's command computes everything anew and writes what it found to files, which are read here: every charge with
//! its id, what each of the run's tokens says, and what leases held in the end. The tokens are sealed: their ids are known to
//! nobody but who has the ledger's keys.

use super::oracle::{Id, Paid, Sold};
use crate::fleet::{Fleet, FleetError};
use std::collections::BTreeMap;
use std::path::Path;

/// What the audit found.
#[derive(Debug, Default)]
pub struct Audited {
    /// Nothing is wrong on any voter.
    pub clean: bool,
    /// Charges that a voter posted twice.
    pub double: u64,
    /// The most by which a budget was ever exceeded.
    pub overspend_nanos: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
    /// Every charge, by voter.
    pub charges: Vec<BTreeMap<Id, Paid>>,
    /// What the tokens say, in the order in which they were sold; `None` of one that no key opens.
    pub tokens: Vec<Option<(Id, Paid)>>,
    /// By campaign.
    pub held: BTreeMap<u64, Held>,
    /// Leases that ended without a report.
    pub unreported: u64,
}

/// What leases held and nobody was charged, nanos: nothing else of ads that pay for impressions can be served free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// In the end, of leases whose routers did not report them.
    pub unreported: u64,
    /// Issued, reported, and not charged in time.
    pub uncharged: u64,
    /// Of leases that have not ended.
    pub open: u64,
}

impl Held {
    /// Together.
    #[must_use]
    pub const fn bound(&self) -> u64 {
        self.unreported + self.uncharged + self.open
    }
}

/// Has the operator's command compute everything anew.
pub fn audit(fleet: &Fleet, sold: &[Sold]) -> Result<Audited, FleetError> {
    let folder = fleet.logs().join("audit");
    // A run before this one may have left files of other voters.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(FleetError::io(&folder))?;
    let at = |name: &str| folder.join(name).display().to_string();
    let (charges, leases, tokens) = (at("charges.txt"), at("leases.txt"), at("tokens.txt"));
    let lines: Vec<&str> = sold.iter().map(|token| &*token.text).collect();
    std::fs::write(&tokens, lines.join("\n")).map_err(FleetError::io(Path::new(&tokens)))?;
    let files = ["--charges", &charges, "--leases", &leases, "--tokens", &tokens];
    let output = fleet.ask(&[&["ledger", "audit", "--json"][..], &files].concat())?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| {
        FleetError::Process(format!("the audit said nothing: {e}: {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    let mut audited = Audited { clean: said["clean"] == true, ..Audited::default() };
    for voter in said["voters"].as_array().into_iter().flatten() {
        audited.double = audited.double.max(voter["double"].as_u64().unwrap_or(0));
        audited.overspend_nanos = audited.overspend_nanos.max(voter["overspend_nanos"].as_u64().unwrap_or(0));
        audited.unreported = audited.unreported.max(voter["leases"]["unreported"].as_u64().unwrap_or(0));
        let lists = ["faults", "differences"].into_iter().filter_map(|list| voter[list].as_array()).flatten();
        audited.faults.extend(lists.filter_map(|fault| fault.as_str()).map(str::to_owned));
    }
    audited.read(&folder, sold.len())?;
    Ok(audited)
}

impl Audited {
    /// Reads the files. What charges and tokens are must be the same for all voters; leases go on while one after the
    /// other is asked, and those of the first are taken.
    fn read(&mut self, folder: &Path, sold: usize) -> Result<(), FleetError> {
        let charges = texts(folder, "charges-")?;
        let tokens = texts(folder, "tokens-")?;
        for (what, texts) in [("charges", &charges), ("tokens", &tokens)] {
            if texts.is_empty() || texts.windows(2).any(|w| w[0] != w[1]) {
                self.faults.push(format!("the voters do not say the same {what}"));
            }
        }
        for text in &charges {
            let mut of_voter = BTreeMap::new();
            for line in text.lines() {
                match named(line) {
                    Some((id, paid)) => {
                        of_voter.insert(id, paid);
                    }
                    None => self.faults.push(format!("{line:?} is no charge")),
                }
            }
            self.charges.push(of_voter);
        }
        self.tokens = tokens.first().into_iter().flat_map(|text| text.lines()).map(named).collect();
        if self.tokens.len() != sold {
            self.faults.push(format!("{} of {sold} tokens were looked up", self.tokens.len()));
        }
        for line in texts(folder, "leases-")?.first().into_iter().flat_map(|text| text.lines()) {
            match numbers(line) {
                Some([campaign, unreported, uncharged, open]) => {
                    self.held.insert(campaign, Held { unreported, uncharged, open });
                }
                None => self.faults.push(format!("{line:?} is no campaign's leases")),
            }
        }
        Ok(())
    }
}

/// What the files of a name hold, in the order of their voters.
fn texts(folder: &Path, prefix: &str) -> Result<Vec<String>, FleetError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(FleetError::io(folder))? {
        let path = entry.map_err(FleetError::io(folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).map_err(FleetError::io(path))).collect()
}

/// A line that begins with issuer, sequence, kind, campaign and price.
fn named(line: &str) -> Option<(Id, Paid)> {
    let [issuer, sequence, kind, campaign, nanos] = numbers(line)?;
    Some(((issuer, sequence, u8::try_from(kind).ok()?), (campaign, i64::try_from(nanos).ok()?)))
}

/// The numbers that a line begins with.
fn numbers<const N: usize>(line: &str) -> Option<[u64; N]> {
    let (mut words, mut found) = (line.split(' '), [0; N]);
    for place in &mut found {
        *place = words.next()?.parse().ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::super::oracle::missing;
    use super::*;

    #[test]
    fn files_are_read_as_they_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        for voter in ["a-1", "b-2"] {
            write(&format!("charges-{voter}.txt"), "3 9 2 44 1200\n3 10 1 45 7\n");
            write(&format!("tokens-{voter}.txt"), "3 10 1 45 7 6 charged\nforged\n");
        }
        write("tokens.txt", "what was asked");
        write("leases-a-1.txt", "45 100 20 3\n");
        let mut audited = Audited::default();
        audited.read(folder.path(), 2).expect("read");
        assert_eq!(audited.faults, Vec::<String>::new());
        let charges = BTreeMap::from([((3, 9, 2), (44, 1_200)), ((3, 10, 1), (45, 7))]);
        assert_eq!(audited.charges, [charges.clone(), charges.clone()]);
        assert_eq!(audited.tokens, [Some(((3, 10, 1), (45, 7))), None]);
        assert_eq!(audited.held[&45].bound(), 123);
        write("charges-b-2.txt", "3 9 2 44 1201\n");
        let mut other = Audited::default();
        other.read(folder.path(), 3).expect("read");
        assert_eq!(other.faults.len(), 2, "{:?}", other.faults);
        assert_eq!(missing(&charges, &other.charges), 2, "the second voter has one at another price, and lost one");
    }
}
