//! Is what lies on this disk still what was put there, and what if it is not?
//!
//! All that a member keeps was made from a blob and can be made again. So what does not verify is made anew, once.
//! What cannot be read just now (no descriptors, a failing disk, a newer format) is left alone: to delete it would
//! turn a passing fault into a download for every process of the machine.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Opens what lies at `path`. When nothing lies there, or what does is damaged, `make` puts it there anew.
///
/// # Errors
/// Those of `open` and `make`; damage only of what was just made.
pub fn open_or_make<T, E: Display>(
    path: &Path,
    open: impl Fn(&Path) -> Result<T, E>,
    is_damage: impl Fn(&E) -> bool,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<T, E> {
    if path.exists() {
        match open(path) {
            Err(error) if is_damage(&error) => {
                tracing::error!(%error, path = %path.display(), "damaged on disk: it is made again");
                metrics::counter!("gavel_damaged_on_disk_total").increment(1);
            }
            opened => return opened,
        }
    }
    make(path)?;
    open(path)
}

/// Removes a file or a folder; one that is not there is removed already.
///
/// # Errors
/// Whatever the disk says.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes what is in a folder under a name that may not stay; a folder that is not there is empty.
///
/// # Errors
/// The first that the disk says.
pub fn sweep(folder: &Path, stays: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !stays(&entry.file_name().to_string_lossy()) {
            tracing::info!(path = %entry.path().display(), "removed: nobody can ask for it any more");
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::path::PathBuf;

    /// Opens a file that must say "whole"; what the disk says is no damage.
    fn open(path: &Path) -> Result<String, io::Error> {
        let text = std::fs::read_to_string(path)?;
        if text == "whole" { Ok(text) } else { Err(ErrorKind::InvalidData.into()) }
    }

    fn check(path: &Path, makes: &str, made: u32) -> Result<String, io::Error> {
        let count = Cell::new(0);
        let make = |path: &Path| {
            count.set(count.get() + 1);
            std::fs::write(path, makes)
        };
        let opened = open_or_make(path, open, |error| error.kind() == ErrorKind::InvalidData, make);
        assert_eq!(count.get(), made);
        opened
    }

    #[test]
    fn damage_is_mended_once_and_a_failing_disk_costs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path: PathBuf = folder.path().join("kept");
        assert!(check(&path, "whole", 1).is_ok(), "nothing was there");
        assert!(check(&path, "whole", 0).is_ok());
        std::fs::write(&path, "wh0le").expect("written");
        assert!(check(&path, "whole", 1).is_ok());
        std::fs::write(&path, "wh0le").expect("written");
        assert!(check(&path, "no better", 1).is_err());
        // A folder where a file should be: the disk says no.
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(check(&path, "whole", 0).is_err());
    }

    #[test]
    fn a_sweep_leaves_what_may_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("old/deep")).expect("made");
        for name in ["stays", "goes"] {
            std::fs::write(folder.path().join(name), "x").expect("written");
        }
        sweep(folder.path(), |name| name == "stays").expect("swept");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["stays"]);
        assert!(sweep(&folder.path().join("absent"), |_| false).is_ok());
    }
}
