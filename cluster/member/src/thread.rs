//! How does work in the background step back behind requests?
//!
//! Staging runs for minutes on nodes and seconds on routers, beside searches and user towers that somebody waits for. A
//! thread of its own with a low priority leaves them the core whenever they want it.

/// Nice value of background threads: the scheduler then gives a waiting search nine tenths of the core, and
/// staging still gets on when the machine is full.
const BACKGROUND_NICE: libc::c_int = 10;

/// Lowers the priority of the calling thread; on Linux a nice value belongs to the thread.
pub fn lower_priority() {
    // SAFETY: takes numbers only; 0 names the calling thread.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND_NICE) };
    if failed != 0 {
        tracing::debug!("the priority of a background thread stays as it was");
    }
}

/// Runs `work` on a thread of its own with a low priority and waits for it; call it where waiting is allowed. Inside,
/// the runtime that it is called from can be waited on.
///
/// # Errors
/// When the system gives no thread.
pub fn aside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            lower_priority();
            let _inside = runtime.as_ref().map(tokio::runtime::Handle::enter);
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    /// A nice value belongs to the thread: whoever waits keeps its own.
    #[test]
    fn work_aside_has_a_priority_of_its_own() {
        // SAFETY: takes numbers only; 0 names the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let aside = super::aside("test", nice).expect("a thread");
        assert!(aside >= super::BACKGROUND_NICE && nice() == before, "{aside} {before}");
    }
}
