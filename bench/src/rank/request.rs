//! Which requests are measured?
//!
//! Each user of the rows, up to a bound, is one request; its candidates are the rows' items, repeated until there are
//! enough. What a cluster has before the request comes (activations) and what both sides of a comparison are given
//! (encoded features) is computed here, once. The rows of the candidates lie in the order in which they are ranked: a
//! catalogue's lie anywhere, so that a node waits longer for the first bytes of each.

use super::RankError;
use super::rows::rows;
use gavel_model::{Bundle, EncodedRequest, FeatureRow, Scratch};
use std::path::Path;

/// Users that take turns: enough that no user's values stay where the last request left them.
const USERS_MAX: usize = 16;

/// One request, ready to be measured.
pub struct Prepared {
    /// User and candidates for the graphs.
    pub encoded: EncodedRequest,
    /// Encoded features of the meetings, row-major.
    pub cross: Vec<f32>,
}

/// Requests over the same candidates.
pub struct Requests {
    /// One a user.
    pub requests: Vec<Prepared>,
    /// Stored activations of the candidates, row-major.
    pub activations: Vec<f32>,
    /// Which row each candidate has.
    pub items: Vec<u32>,
    /// Candidates of each.
    pub candidates: usize,
    /// Rows that they were made of.
    pub rows: usize,
}

/// Builds the requests from a file, or from the golden rows.
pub fn build(bundle: &Bundle, path: Option<&Path>, candidates: usize) -> Result<Requests, RankError> {
    let examples = rows(bundle, path)?.take(candidates).collect::<Result<Vec<_>, _>>()?;
    let mut users: Vec<&FeatureRow> = Vec::new();
    for example in &examples {
        if users.len() < USERS_MAX && !users.contains(&&example.user) {
            users.push(&example.user);
        }
    }
    if users.is_empty() {
        return Err(RankError::Usage("there are no rows to rank".to_owned()));
    }
    let items: Vec<FeatureRow> = examples.iter().map(|e| e.item.clone()).cycle().take(candidates).collect();
    let mut scratch = Scratch::default();
    let activations = bundle.run_items(&mut scratch, &items)?.activations;
    let mut requests = Vec::with_capacity(users.len());
    for user in users {
        let cross: Vec<f32> = items.iter().flat_map(|item| bundle.cross(user, item)).collect();
        let encoded = bundle.encode_request(&mut scratch, user, &items, &cross)?;
        requests.push(Prepared { encoded, cross });
    }
    let order = (0..).take(candidates).collect();
    Ok(Requests { requests, activations, items: order, candidates, rows: examples.len() })
}
