//! Whose features were asked for lately?
//!
//! A bounded cache in front of a store, split so that requests seldom wait for each other. The oldest entry goes
//! first, whether it was asked for since or not: one generation never changes, so an entry is never wrong, and a
//! smarter order would cost a write at every hit. Unknown users are not kept: strangers would push out everybody.

use super::{Lookup, StoredUser, UserFeatures};
use gavel_proto::hash::value_hash;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts with a lock of their own.
const PARTS: usize = 16;
/// Users kept: some kilobytes each, so some tens of megabytes at most.
const USERS_MAX: usize = 16_384;

#[derive(Default)]
struct Part {
    users: HashMap<String, Arc<StoredUser>>,
    oldest: VecDeque<String>,
}

/// A store behind a cache.
pub struct UserCache<S> {
    store: S,
    parts: [Mutex<Part>; PARTS],
}

impl<S: UserFeatures> UserCache<S> {
    /// Knows nobody yet.
    pub fn new(store: S) -> Self {
        Self { store, parts: std::array::from_fn(|_| Mutex::default()) }
    }

    fn part(&self, user_id: &str) -> MutexGuard<'_, Part> {
        let at = value_hash(user_id) as usize % PARTS;
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: UserFeatures> UserFeatures for UserCache<S> {
    fn get<'a>(&'a self, user_id: &'a str) -> Lookup<'a> {
        Box::pin(async move {
            let known = self.part(user_id).users.get(user_id).cloned();
            if known.is_some() {
                return Ok(known);
            }
            let found = self.store.get(user_id).await?;
            if let Some(user) = &found {
                self.part(user_id).keep(user_id, Arc::clone(user));
            }
            Ok(found)
        })
    }
}

impl Part {
    fn keep(&mut self, user_id: &str, user: Arc<StoredUser>) {
        if self.users.insert(user_id.to_owned(), user).is_some() {
            return;
        }
        self.oldest.push_back(user_id.to_owned());
        if self.oldest.len() > USERS_MAX / PARTS
            && let Some(gone) = self.oldest.pop_front()
        {
            self.users.remove(&gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Knows everybody but "nobody", and counts the questions.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl UserFeatures for Counting {
        fn get<'a>(&'a self, user_id: &'a str) -> Lookup<'a> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let user = StoredUser { user_id: user_id.to_owned(), ..StoredUser::default() };
            Box::pin(std::future::ready(Ok((user_id != "nobody").then(|| Arc::new(user)))))
        }
    }

    #[tokio::test]
    async fn a_user_is_read_once_and_the_cache_is_bounded() {
        let cache = UserCache::new(Counting::default());
        for _ in 0..3 {
            assert!(cache.get("ann").await.expect("asked").is_some());
            assert!(cache.get("nobody").await.expect("asked").is_none());
        }
        assert_eq!(cache.store.0.load(Ordering::Relaxed), 1 + 3);
        for i in 0..3 * USERS_MAX {
            cache.get(&format!("user-{i}")).await.expect("asked");
        }
        let kept: usize = cache.parts.iter().map(|p| p.lock().expect("whole").users.len()).sum();
        assert!(kept <= USERS_MAX, "{kept}");
    }
}
