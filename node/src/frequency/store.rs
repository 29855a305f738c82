//! How are the tables shared by everybody who counts?
//!
//! 256 tables, each behind a lock that is held for microseconds: by a request, by a copy from another node, by a
//! snapshot of that table. Under the lock a decision takes its number in the table's sequence and its place in the
//! queues of the journal and of the other nodes, so that all of them see one order. Nothing waits under a lock.

use super::CountingConfig;
use super::convert::CopyMessage;
use super::copies::Copies;
use super::journal::{Entry, Journal, JournalError, Origin, Recovered};
use super::kernel::{AdToCount, Counter, Op, Placement, Table, Verdict};
use arc_swap::ArcSwap;
use gavel_member::clock;
use gavel_proto::frequency::SeenCount;
use gavel_proto::ids::MemberId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of the users. A snapshot holds the lock of one at a time: of a million users these are 4,000, a millisecond.
pub(super) const TABLES: usize = 256;

/// Why counts cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk says no.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// This node may not say: another one holds the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node does not hold the user, or not yet")]
pub struct NotHere;

/// A table with the number of its last record.
#[derive(Debug)]
pub struct Slot {
    /// The counts.
    pub table: Table,
    /// Grows with each change.
    pub sequence: u64,
}

/// All tables.
#[derive(Debug)]
pub struct Tables(Vec<Mutex<Slot>>);

impl Tables {
    fn new(bytes_max: u64) -> Self {
        let each = usize::try_from(bytes_max).unwrap_or(usize::MAX) / TABLES;
        Self((0..TABLES).map(|_| Mutex::new(Slot { table: Table::new(each), sequence: 0 })).collect())
    }

    /// The table of a user.
    pub const fn of(user: u64) -> usize {
        user as usize % TABLES
    }

    /// A table by its number.
    pub fn lock(&self, table: usize) -> MutexGuard<'_, Slot> {
        // A table is changed in single steps; a panic elsewhere leaves it whole.
        self.0[table % TABLES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Users.
    pub users: u64,
    /// Their counters.
    pub counters: u64,
    /// Memory.
    pub bytes: u64,
}

/// The counts of this node.
#[derive(Debug)]
pub struct Store {
    tables: Arc<Tables>,
    journal: Journal,
    copies: Copies,
    placement: ArcSwap<Placement>,
    /// Rounds that the other nodes have sent everything for.
    said: Mutex<HashMap<MemberId, u64>>,
    bytes_max: u64,
    /// The latest time that was decided by: the clock may go back, decisions must not.
    latest_ms: AtomicU64,
}

impl Store {
    /// Opens what is on disk.
    ///
    /// # Errors
    /// When the folder cannot be read or written. What is damaged is left out with an error in the log.
    pub fn open(config: &CountingConfig) -> Result<Arc<Self>, StoreError> {
        let tables = Arc::new(Tables::new(config.bytes_max));
        let now_ms = clock::wall_ms();
        let next = super::journal::recover(&config.folder, |record| take_back(&tables, record, now_ms))?;
        for table in 0..TABLES {
            tables.lock(table).table.sweep(now_ms);
        }
        let journal = Journal::start(&config.folder, next, Arc::clone(&tables))?;
        Ok(Arc::new(Self {
            tables,
            journal,
            copies: Copies::default(),
            placement: ArcSwap::default(),
            said: Mutex::default(),
            bytes_max: config.bytes_max,
            latest_ms: AtomicU64::new(now_ms),
        }))
    }

    /// What a user has seen.
    ///
    /// # Errors
    /// When this node does not hold the user.
    pub fn counts(&self, user: u64) -> Result<Vec<SeenCount>, NotHere> {
        self.check(user)?;
        Ok(self.tables.lock(Tables::of(user)).table.seen(user, self.now_ms()))
    }

    /// Decides a reservation.
    ///
    /// # Errors
    /// When this node does not hold the user.
    pub fn reserve(&self, user: u64, reservation: u64, ads: Vec<AdToCount>) -> Result<Vec<Verdict>, NotHere> {
        self.check(user)?;
        let mut slot = self.tables.lock(Tables::of(user));
        let (verdicts, ops) = slot.table.reserve(user, reservation, ads, self.now_ms());
        self.tell(&mut slot, ops);
        Ok(verdicts)
    }

    /// What a reservation would meet now; nothing counts.
    ///
    /// # Errors
    /// When this node does not hold the user.
    pub fn look(&self, user: u64, ads: Vec<AdToCount>) -> Result<Vec<Verdict>, NotHere> {
        self.check(user)?;
        Ok(self.tables.lock(Tables::of(user)).table.look(user, ads, self.now_ms()))
    }

    /// Gives back what was reserved. Whoever holds the reservation takes it, also when the user has moved meanwhile.
    pub fn release(&self, user: u64, reservation: u64, ads: &[u64]) {
        let mut slot = self.tables.lock(Tables::of(user));
        let ops = slot.table.release(user, reservation, ads);
        metrics::counter!("gavel_frequency_released_total").increment(ops.len() as u64);
        self.tell(&mut slot, ops);
    }

    /// Takes what another node has counted.
    pub fn take(&self, message: CopyMessage) {
        let now_ms = self.now_ms();
        for op in message.ops {
            let mut slot = self.tables.lock(Tables::of(op.user));
            if slot.table.apply(&op, now_ms) {
                self.log(&mut slot, Tables::of(op.user), Entry::Op(Arc::new(op)));
            }
        }
        for (user, counters) in message.users {
            let mut slot = self.tables.lock(Tables::of(user));
            slot.table.merge(user, &counters, now_ms);
            self.log(&mut slot, Tables::of(user), Entry::User(user, counters));
        }
        if message.settled != 0 {
            self.said().insert(message.from, message.settled);
        }
    }

    /// What is held in all.
    #[must_use]
    pub fn held(&self) -> Held {
        (0..TABLES).fold(Held::default(), |held, table| {
            let slot = self.tables.lock(table);
            Held {
                users: held.users + slot.table.len() as u64,
                counters: held.counters + slot.table.counters() as u64,
                bytes: held.bytes + slot.table.bytes() as u64,
            }
        })
    }

    /// Memory that counts may take.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Who holds whom.
    #[must_use]
    pub fn placement(&self) -> Arc<Placement> {
        self.placement.load_full()
    }

    pub(super) fn place(&self, placement: Placement) {
        self.placement.store(Arc::new(placement));
    }

    /// Whether every other node has sent what moves in this round.
    pub(super) fn has_come(&self, placement: &Placement) -> bool {
        let said = self.said();
        placement.others().all(|node| said.get(&node) == Some(&placement.round()))
    }

    /// The queues to the other nodes.
    #[must_use]
    pub const fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Forgets what is empty in one table.
    pub(super) fn sweep(&self, table: usize) {
        let gone = self.tables.lock(table).table.sweep(self.now_ms());
        metrics::counter!("gavel_frequency_forgotten_total").increment(gone as u64);
    }

    /// Writes what is left; blocks until it is on disk.
    pub fn close(&self) {
        self.journal.close();
    }

    fn check(&self, user: u64) -> Result<(), NotHere> {
        if self.placement.load().answers_for(user) { Ok(()) } else { Err(NotHere) }
    }

    fn now_ms(&self) -> u64 {
        let wall_ms = clock::wall_ms();
        self.latest_ms.fetch_max(wall_ms, Ordering::Relaxed).max(wall_ms)
    }

    fn said(&self) -> MutexGuard<'_, HashMap<MemberId, u64>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the journal and the other nodes of a user, in the order of the table.
    fn tell(&self, slot: &mut Slot, ops: Vec<Op>) {
        let placement = self.placement.load();
        for op in ops.into_iter().map(Arc::new) {
            for node in placement.copy_to(op.user) {
                self.copies.push(node, &op);
            }
            self.log(slot, Tables::of(op.user), Entry::Op(op));
        }
    }

    fn log(&self, slot: &mut Slot, table: usize, entry: Entry) {
        slot.sequence += 1;
        self.journal.push(table, slot.sequence, entry);
    }
}

/// A record of the disk, into its table.
fn take_back(tables: &Tables, record: Recovered, now_ms: u64) {
    let mut slot = tables.lock(record.table);
    if record.origin == Origin::Log && record.sequence <= slot.sequence {
        return;
    }
    slot.sequence = slot.sequence.max(record.sequence);
    if let Some(op) = record.op {
        // At its own time, so that what was given back is found as it was then.
        slot.table.apply(&op, op.at_ms.min(now_ms));
    }
    for (user, counters) in &record.users {
        slot.table.merge(*user, counters, now_ms);
    }
}

/// The counters of a user, as the other nodes and the disk take them.
pub(super) fn copy_of(slot: &Slot, user: u64) -> (u64, Vec<Counter>) {
    (user, slot.table.counters_of(user).to_vec())
}
