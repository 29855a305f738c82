//! How do the processes of a cluster end?
//!
//! In peace, by SIGTERM and a wait, or at once, as `kill -9` does. A process is ended by its own handle and no other way,
//! so that no id that the system has given to somebody else is ever signalled. Whoever drops the cluster ends all of it;
//! a run that is interrupted must drop it, too.

use super::{Fleet, FleetError, Process, RETRY, Role};
use crate::clock::monotonic_us;
use std::path::Path;
use std::time::Duration;

/// Longest wait for a process to end in peace: a router tells everybody first.
const END_MAX: Duration = Duration::from_secs(60);

impl Fleet {
    /// Asks the processes of a role to end in peace, and waits until they have.
    ///
    /// # Errors
    /// When one does not.
    pub fn end(&mut self, role: Role) -> Result<(), FleetError> {
        self.processes.iter_mut().filter(|process| process.role == role).try_for_each(Process::end)
    }

    /// Ends every process.
    pub fn stop(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }
}

impl Process {
    /// Asks it to end in peace, and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(&mut self) -> Result<(), FleetError> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let failed = |what: &str| FleetError::Process(format!("{} {what}: see {}", self.name, self.log.display()));
        let id = libc::pid_t::try_from(child.id()).map_err(|_| failed("has no process id"))?;
        // SAFETY: a signal to a child that was not waited for yet, so the id is still its own.
        if unsafe { libc::kill(id, libc::SIGTERM) } != 0 {
            return Err(failed("cannot be told to end"));
        }
        let from = monotonic_us();
        while child.try_wait().map_err(|_| failed("cannot be waited for"))?.is_none() {
            if Duration::from_micros(monotonic_us() - from) > END_MAX {
                return Err(failed("does not end"));
            }
            std::thread::sleep(RETRY);
        }
        self.child = None;
        Ok(())
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It is a child of ours: neither can fail but for a process that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs to its end, unless this process is asked to end before: the processes of a fleet end with the value that holds
/// them, so an interrupted run must drop it.
///
/// # Errors
/// The run's own, and that it was interrupted.
pub async fn unless_interrupted<T>(run: impl Future<Output = Result<T, FleetError>>) -> Result<T, FleetError> {
    let kind = tokio::signal::unix::SignalKind::terminate();
    let mut terminated = tokio::signal::unix::signal(kind).map_err(FleetError::io(Path::new("SIGTERM")))?;
    tokio::select! {
        ran = run => ran,
        _ = tokio::signal::ctrl_c() => Err(FleetError::Process("interrupted".to_owned())),
        _ = terminated.recv() => Err(FleetError::Process("terminated".to_owned())),
    }
}
