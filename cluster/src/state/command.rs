//! What may be asked of the control state?
//!
//! One value per entry of the replicated log. Nothing here is checked yet: a command is what somebody
//! wished, and `apply` says what came of it. Time enters only as `proposed_ms`.

use gavel_proto::delivery::Change;
use gavel_proto::hash::TieKey;

use super::types::{Auction, Hash32, ModelPolicy, Placement, Ready, Role, RolloutPlan, ShardSource, Signature};

/// An entry of the replicated log.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Idempotency key; empty for the leader's own commands, which repeat safely.
    pub id: String,
    /// BLAKE3 of the body as it travels, to tell a retry from another command under the same key.
    pub digest: Hash32,
    /// Wall clock of the proposer, in milliseconds since 1970.
    pub proposed_ms: u64,
    /// The wish.
    pub body: Body,
}

/// What a command wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A process joins or comes back.
    RegisterMember(RegisterMember),
    /// The leader saw a member die, return or drain.
    SetAlive(SetAlive),
    /// A bundle becomes known.
    PublishModel(PublishModel),
    /// Members are to hold a known bundle.
    StageModel {
        /// Its version.
        version: u64,
    },
    /// A bundle is never to serve again.
    RetireModel {
        /// Its version.
        version: u64,
    },
    /// A staged bundle is to get a share of requests.
    BeginRollout {
        /// Its version.
        version: u64,
        /// The version that serves now.
        expect_active: u64,
        /// Shares, times and guards.
        plan: RolloutPlan,
    },
    /// The next step of a rollout begins.
    StepRollout {
        /// The candidate.
        version: u64,
        /// The step.
        step: u32,
    },
    /// A rollout ends.
    EndRollout {
        /// The candidate.
        version: u64,
        /// Why.
        reason: String,
        /// Who ends it.
        by: EndedBy,
    },
    /// Whose bundles are taken from now on.
    SetModelPolicy(ModelPolicy),
    /// The staged bundle is to serve.
    ActivateModel {
        /// The version to activate.
        version: u64,
        /// The version that serves now, 0 for none.
        expect_active: u64,
    },
    /// The previous bundle is to serve again.
    RollbackModel {
        /// The version that serves now.
        expect_active: u64,
    },
    /// A catalogue is to be built on the nodes.
    BeginGeneration(BeginGeneration),
    /// The built catalogue is to serve.
    ActivateGeneration {
        /// Its number.
        generation: u64,
    },
    /// The rules of the auction.
    SetAuction(Auction),
    /// What ties are made with from now on.
    SetTieKey {
        /// From the proposer's random source.
        key: TieKey,
        /// The id of the key that is in force now.
        replaces: u64,
    },
    /// Where ads may stand.
    SetPlacement(Placement),
    /// Bids, statuses, multipliers and what else is said of campaigns.
    PublishDelivery(PublishDelivery),
    /// A placement goes.
    RemovePlacement {
        /// Its name.
        name: String,
    },
    /// What a member is ready for, as the leader heard it.
    ReportReady {
        /// Who.
        member: u64,
        /// Of which process start.
        incarnation: u64,
        /// For what.
        ready: Ready,
    },
    /// A dead member is forgotten.
    RemoveMember {
        /// Who.
        member: u64,
    },
}

/// See [`Body::RegisterMember`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterMember {
    /// Made once by the process, kept in its data folder.
    pub key: String,
    /// What it does.
    pub role: Role,
    /// host:port of its gRPC endpoint.
    pub address: String,
    /// For people.
    pub name: String,
    /// New at every process start.
    pub incarnation: u64,
}

/// Whether a member answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// No heartbeat for too long.
    Dead,
    /// Answers, and takes part.
    Serving,
    /// Answers, and is about to leave.
    Draining,
}

/// See [`Body::SetAlive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAlive {
    /// Who.
    pub member: u64,
    /// Of which process start.
    pub incarnation: u64,
    /// What the leader saw.
    pub liveness: Liveness,
}

/// See [`Body::PublishModel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishModel {
    /// BLAKE3 of the packed bundle.
    pub hash: Hash32,
    /// Its length.
    pub bytes: u64,
    /// For people.
    pub name: String,
    /// Who publishes it.
    pub uploader: String,
    /// Whether it is staged with the same entry.
    pub staging: Staging,
    /// The version that its publisher gives it; 0 for the next.
    pub version: u64,
    /// Who vouches for it.
    pub signature: Option<Signature>,
    /// What its publisher measured beside the bundle that served.
    pub report: String,
}

/// Whether a published bundle is staged with the same entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Staging {
    /// It is.
    AtOnce,
    /// An entry of its own says when.
    Later,
}

/// Who ends a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// A person.
    Operator,
    /// One of its guards.
    Guard,
}

/// See [`Body::BeginGeneration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginGeneration {
    /// One per shard.
    pub shards: Vec<ShardSource>,
    /// The campaigns' blob.
    pub campaigns: Blob,
    /// The users' blob, if there is one.
    pub users: Option<Blob>,
    /// Copies of each shard.
    pub replicas: u32,
}

/// See [`Body::PublishDelivery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishDelivery {
    /// One after the other.
    pub changes: Vec<Change>,
    /// Only while this generation serves; 0 for whichever does.
    pub generation: u64,
    /// Digest of what the same request asked of others: a retry is told by it.
    pub beside: Vec<u8>,
}

/// A content-addressed file and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Blob {
    /// BLAKE3 of its bytes.
    pub hash: Hash32,
    /// Its length.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
}
