//! Who does the CPU work?
//!
//! A fixed number of threads with a bounded queue, each with its own scratch memory: async threads never compute,
//! and a burst finds a full queue at once instead of waiting for an answer that would come too late. The job reads
//! the clock itself when it starts, and drops itself when nobody waits for it any more.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// The queue has no room: shed the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work queue is full")]
pub struct Full;

/// Threads with scratch memory of type `S`.
pub struct CpuPool<S> {
    queue: Arc<Queue<S>>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue<S> {
    state: Mutex<State<S>>,
    arrived: Condvar,
    bound: usize,
}

struct State<S> {
    jobs: VecDeque<Job<S>>,
    closed: bool,
}

impl<S: 'static> CpuPool<S> {
    /// Starts `threads` threads named after `name`; at most `bound` jobs wait.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(
        name: &str,
        threads: usize,
        bound: usize,
        scratch: impl Fn() -> S + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State { jobs: VecDeque::with_capacity(bound), closed: false }),
            arrived: Condvar::new(),
            bound,
        });
        let scratch = Arc::new(scratch);
        let start = |at: usize| {
            let (queue, scratch) = (Arc::clone(&queue), Arc::clone(&scratch));
            std::thread::Builder::new().name(format!("{name}-{at}")).spawn(move || {
                let mut scratch = scratch();
                while let Some(job) = queue.take() {
                    job(&mut scratch);
                }
            })
        };
        let threads: std::io::Result<Vec<_>> = (0..threads.max(1)).map(start).collect();
        Ok(Self { queue, threads: threads? })
    }

    /// Queues a job; the receiver gets its result.
    ///
    /// # Errors
    /// [`Full`] when the queue has no room.
    pub fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<oneshot::Receiver<R>, Full> {
        let (sender, receiver) = oneshot::channel();
        let job: Job<S> = Box::new(move |scratch| {
            if !sender.is_closed() {
                // The caller may have gone while the job ran.
                let _ = sender.send(job(scratch));
            }
        });
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.jobs.len() >= self.queue.bound {
            return Err(Full);
        }
        state.jobs.push_back(job);
        drop(state);
        self.queue.arrived.notify_one();
        Ok(receiver)
    }

    /// Jobs that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).jobs.len()
    }
}

impl<S> Queue<S> {
    /// The next job; `None` once the pool is gone and nothing is left.
    fn take(&self) -> Option<Job<S>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S> Drop for CpuPool<S> {
    fn drop(&mut self) {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.queue.arrived.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|t| t.thread().id() != own) {
            // A panic has been reported by the hook already.
            let _ = thread.join();
        }
    }
}

impl<S> std::fmt::Debug for CpuPool<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuPool").field("threads", &self.threads.len()).field("bound", &self.queue.bound).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_and_a_full_queue_refuses() {
        let pool = CpuPool::new("test", 1, 2, || 0u32).expect("threads");
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let started = Arc::new(std::sync::Barrier::new(2));
        let inside = Arc::clone(&started);
        let blocked = pool.submit(move |_| {
            inside.wait();
            gate.recv().is_ok()
        });
        started.wait();
        let second = pool.submit(|count| {
            *count += 1;
            *count
        });
        let third = pool.submit(|count| *count);
        assert_eq!(pool.submit(|_| ()).expect_err("no room"), Full);
        assert_eq!(pool.queued(), 2);
        open.send(()).expect("open");
        assert!(blocked.expect("queued").blocking_recv().expect("ran"));
        assert_eq!(second.expect("queued").blocking_recv(), Ok(1));
        assert_eq!(third.expect("queued").blocking_recv(), Ok(1));
    }

    #[test]
    fn a_job_that_nobody_waits_for_is_dropped() {
        let pool = CpuPool::new("test", 1, 8, || ()).expect("threads");
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let first = pool.submit(move |()| gate.recv().is_ok()).expect("queued");
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        drop(pool.submit(move |()| mark.store(true, std::sync::atomic::Ordering::SeqCst)).expect("queued"));
        open.send(()).expect("open");
        assert_eq!(first.blocking_recv(), Ok(true));
        drop(pool);
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }
}
