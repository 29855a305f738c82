//! openraft's own contract for storage.

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::ledger::Ledger;
use crate::raft::index::Contiguity;
use crate::raft::journal::Journal;
use crate::raft::log::LogStore;
use crate::raft::machine::Machine;
use crate::raft::recovery::{Expected, FORMAT, Header};
use crate::raft::{StorageError, TypeConfig};

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = Header { format: FORMAT, cluster_id: "suite".to_owned(), node_id: 1 };
        let expected = Expected { owner, contiguity: Contiguity::Unchecked, covered: None };
        let log = LogStore::open(folder.path(), &expected).expect("a log");
        let machine = Machine::open(folder.path(), "suite").expect("a machine");
        Ok((folder, log, machine))
    }
}

/// The same storage under the ledger, with its journal.
struct Books;

impl StoreBuilder<TypeConfig, LogStore, Machine<Ledger>, TempDir> for Books {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine<Ledger>), StorageError> {
        let (folder, log, _) = OnDisk.build().await?;
        let journal = Journal::open(&folder.path().join("journal"), "suite").expect("a journal");
        let machine = Machine::open_with(folder.path(), "suite", Some(journal)).expect("a machine");
        Ok((folder, log, machine))
    }
}

#[test]
fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(OnDisk).expect("the suite passes");
}

#[test]
fn and_under_the_ledger() {
    Suite::test_all(Books).expect("the suite passes");
}
