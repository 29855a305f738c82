//! How far has it come?

use gavel_client::catalogue::Progress;
use std::io::{IsTerminal, Write};

/// Progress on standard error: one line that changes on a terminal, a line per finished stage elsewhere.
#[derive(Debug, Default)]
pub struct Shown {
    stage: String,
    percent: Option<u64>,
}

impl Shown {
    /// Ends the line that changes.
    pub fn end(&mut self) {
        if self.percent.take().is_some() && std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}

impl Progress for Shown {
    fn step(&mut self, stage: &str, done: u64, total: u64) {
        let percent = (done * 100).checked_div(total).unwrap_or(0);
        if self.stage == stage && self.percent == Some(percent) {
            return;
        }
        if self.stage != stage {
            self.end();
            stage.clone_into(&mut self.stage);
        }
        self.percent = Some(percent);
        if std::io::stderr().is_terminal() {
            eprint!("\r{stage}: {done} of {total} ({percent} %)   ");
            // A progress that cannot be shown harms nothing.
            let _ = std::io::stderr().flush();
        } else if percent == 100 {
            eprintln!("{stage}: done");
        }
    }

    fn note(&mut self, text: &str) {
        self.end();
        eprintln!("{text}");
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end();
    }
}
