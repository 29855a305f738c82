//! Is the state what the rules say, and the same for everybody?

use proptest::prelude::*;

use super::command::{
    BeginGeneration, Blob, Body, Command, EndedBy, Liveness, PublishModel, RegisterMember, SetAlive, Staging,
};
use super::types::{
    Auction, Mechanism, ModelPlace, Outcome, Placement, Ready, Role, RolloutMode, ShardCount, ShardKey, ShardSource,
};
use super::{State, apply, auction};
use crate::convert::snapshot::{Position, decode, digest, encode};
use crate::{convert, publish};
use gavel_proto::delivery::{Change, Status};
use gavel_proto::limits::RECEIPTS_MAX;
use gavel_proto::wire;
use prost::Message;

mod delivery;
mod models;
mod ties;

const CLUSTER: &str = "state";

/// A state and the index of its last entry.
struct Log {
    state: State,
    index: u64,
}

impl Log {
    fn new() -> Self {
        Self { state: State::genesis(CLUSTER), index: 0 }
    }

    /// Applies a command the way it comes out of the log: encoded and read again.
    fn say(&mut self, id: &str, body: &Body) -> Outcome {
        self.index += 1;
        let command = read(id, self.index, body);
        apply(&mut self.state, self.index, &command)
    }

    fn done(&mut self, body: &Body) -> u64 {
        match self.say("", body) {
            Outcome::Done(number) => number,
            Outcome::Refused(reason) => panic!("{reason}"),
        }
    }

    fn refused(&mut self, body: &Body) -> String {
        match self.say("", body) {
            Outcome::Refused(reason) => reason,
            Outcome::Done(number) => panic!("done: {number}"),
        }
    }

    fn join(&mut self, key: &str, role: Role, incarnation: u64) -> u64 {
        self.done(&register(key, role, incarnation))
    }

    /// Reports a member as ready for these shards, models and generations.
    fn ready(&mut self, member: u64, shards: &[(u32, u64, u8)], models: &[u8], generations: &[u64]) {
        let incarnation = self.state.members[&member].incarnation;
        let key = |(shard, generation, model): &(u32, u64, u8)| ShardKey {
            shard: *shard,
            generation: *generation,
            model: [*model; 32],
        };
        let ready = Ready {
            shards: shards.iter().map(|s| (key(s), ShardCount { items: 10, ads: 20 })).collect(),
            models: models.iter().map(|m| [*m; 32]).collect(),
            generations: generations.iter().copied().collect(),
            ..Ready::default()
        };
        self.done(&Body::ReportReady { member, incarnation, ready });
    }
}

fn read(id: &str, at: u64, body: &Body) -> Command {
    let bytes = convert::command::to_wire(id, 1_000 + at, body).encode_to_vec();
    let command = convert::command::decode(&bytes).expect("what is written is read");
    assert_eq!(&command.body, body, "nothing is lost on the wire");
    command
}

fn register(key: &str, role: Role, incarnation: u64) -> Body {
    Body::RegisterMember(RegisterMember {
        key: key.to_owned(),
        role,
        address: format!("{key}:1"),
        name: key.to_owned(),
        incarnation,
    })
}

fn model(hash: u8) -> Body {
    Body::PublishModel(publish(hash, Staging::AtOnce))
}

fn publish(hash: u8, staging: Staging) -> PublishModel {
    PublishModel {
        hash: [hash; 32],
        bytes: 5,
        name: "m".to_owned(),
        uploader: "u".to_owned(),
        staging,
        version: 0,
        signature: None,
        report: String::new(),
    }
}

fn load(shards: u32, replicas: u32) -> Body {
    let source = |shard: u32| ShardSource { hash: [shard as u8; 32], bytes: 9, items: 10, ads: 20 };
    Body::BeginGeneration(BeginGeneration {
        shards: (0..shards).map(source).collect(),
        campaigns: Blob { hash: [1; 32], bytes: 3, rows: 4 },
        users: Some(Blob { hash: [2; 32], bytes: 5, rows: 6 }),
        replicas,
    })
}

fn alive(member: u64, incarnation: u64, liveness: Liveness) -> Body {
    Body::SetAlive(SetAlive { member, incarnation, liveness })
}

#[test]
fn a_member_keeps_its_id_and_loses_its_readiness_when_it_restarts() {
    let mut log = Log::new();
    let first = log.join("a", Role::Node, 1);
    assert_eq!(first, 1, "the id is the index of the join");
    let second = log.join("b", Role::Node, 1);
    log.ready(first, &[(0, 1, 7)], &[7], &[]);
    assert_eq!(log.join("a", Role::Node, 1), first, "a repeated join changes nothing");
    assert_eq!(log.state.members[&first].ready.models.len(), 1);
    assert_eq!(log.join("a", Role::Node, 2), first);
    assert_eq!(log.state.members[&first].ready, Ready::default());
    assert_ne!(first, second);
    assert_eq!(log.refused(&alive(first, 1, Liveness::Dead)), "stale_incarnation");
    assert_eq!(log.refused(&alive(99, 1, Liveness::Dead)), "unknown_member");
    assert!(log.refused(&register("a", Role::Router, 3)).contains("another role"));
    log.join("v", Role::Control, 5);
    assert_eq!(log.refused(&register("v", Role::Control, 6)), super::VOTER_WIPED);
}

#[test]
fn a_retry_is_answered_as_before_and_another_command_under_its_id_is_refused() {
    let mut log = Log::new();
    assert_eq!(log.say("x", &model(1)), Outcome::Done(1));
    let before = log.state.clone();
    assert_eq!(log.say("x", &model(1)), Outcome::Done(1));
    assert_eq!(log.say("x", &model(2)), Outcome::refused(super::EXISTS_DIFFERENT));
    log.state.applied_ms = before.applied_ms;
    assert_eq!(log.state, before, "neither did anything");
    let refusal = log.say("y", &Body::ActivateGeneration { generation: 9 });
    assert_eq!(log.say("y", &Body::ActivateGeneration { generation: 9 }), refusal, "a refusal is an answer too");
    assert_eq!(log.say("z", &model(1)), Outcome::Done(1), "the same bytes are the same version");
}

#[test]
fn receipts_are_bounded_and_the_oldest_go_first() {
    let mut log = Log::new();
    for n in 0..RECEIPTS_MAX + 2 {
        log.say(&format!("id-{n}"), &Body::RemovePlacement { name: "none".to_owned() });
    }
    assert_eq!(log.state.receipts.len(), RECEIPTS_MAX);
    assert!(!log.state.receipts.contains_key("id-1") && log.state.receipts.contains_key("id-2"));
}

#[test]
fn a_model_serves_only_when_everybody_alive_has_it() {
    let mut log = Log::new();
    let node = log.join("n", Role::Node, 1);
    let router = log.join("r", Role::Router, 1);
    assert_eq!(log.done(&model(1)), 1);
    let activate = |version, expect_active| Body::ActivateModel { version, expect_active };
    assert!(log.refused(&activate(1, 0)).starts_with("not_ready"));
    log.ready(node, &[], &[1], &[]);
    assert!(log.refused(&activate(1, 0)).contains(&format!("router {router}")));
    log.ready(router, &[], &[1], &[]);
    assert!(log.refused(&activate(1, 7)).starts_with("failed_precondition"));
    assert_eq!(log.done(&activate(1, 0)), 1);

    assert_eq!(log.done(&model(2)), 2, "versions only grow");
    log.ready(node, &[], &[1, 2], &[]);
    assert!(log.refused(&activate(2, 1)).starts_with("not_ready"));
    log.done(&alive(router, 1, Liveness::Dead));
    assert_eq!(log.done(&activate(2, 1)), 2, "the dead are not waited for");
    assert_eq!(log.done(&Body::RollbackModel { expect_active: 2 }), 1);
    assert_eq!((log.state.active_model, log.state.previous_model), (Some(1), Some(2)));
    log.ready(node, &[], &[1], &[]);
    assert!(log.refused(&Body::RollbackModel { expect_active: 1 }).starts_with("not_ready"));
}

fn begin(version: u64, expect_active: u64, mode: RolloutMode) -> Body {
    use super::types::{RolloutGuards, RolloutPlan, RolloutStep};
    let guards = RolloutGuards {
        requests_min: 10,
        non_finite_ppm_max: 1_000,
        prediction_ratio_max: 1.5,
        psi_max: 0.25,
        p99_ratio_max: 2.0,
        coverage_drop_ppm_max: 10_000,
        failed_ppm_max: 10_000,
        calibration_ratio_max: 1.5,
        clicks_min: 100,
    };
    let steps = [10_000, 1_000_000].map(|share_ppm| RolloutStep { share_ppm, hold_ms: 500 }).to_vec();
    Body::BeginRollout { version, expect_active, plan: RolloutPlan { mode, steps, guards, window_ms: 2_000 } }
}

#[test]
fn a_generation_serves_only_when_every_live_replica_has_built_it() {
    let mut log = Log::new();
    let nodes = [log.join("a", Role::Node, 1), log.join("b", Role::Node, 1)];
    let router = log.join("r", Role::Router, 1);
    log.done(&model(1));
    for member in [nodes[0], nodes[1], router] {
        log.ready(member, &[], &[1], &[]);
    }
    log.done(&Body::ActivateModel { version: 1, expect_active: 0 });
    assert!(log.refused(&load(2, 3)).contains("replicas need as many nodes"));
    assert_eq!(log.done(&load(2, 2)), 1);
    assert_eq!(log.done(&load(2, 2)), 2, "a newer load takes the place of a pending one");
    assert!(log.refused(&Body::ActivateGeneration { generation: 1 }).contains("not pending"));
    let go = Body::ActivateGeneration { generation: 2 };
    log.ready(nodes[0], &[(0, 2, 1), (1, 2, 1)], &[1], &[]);
    assert!(log.refused(&go).contains("router"));
    log.ready(router, &[], &[1], &[2]);
    assert!(log.refused(&go).contains(&format!("member {} has not built", nodes[1])));
    log.ready(nodes[1], &[(0, 2, 9), (1, 2, 1)], &[1], &[]);
    assert!(log.refused(&go).contains("shard 0"), "another model's build does not count");
    log.ready(nodes[1], &[(0, 2, 1), (1, 2, 1)], &[1], &[]);
    assert_eq!(log.done(&go), 2);
    let view = publish::view(&log.state);
    assert_eq!(view.shards.iter().map(|s| s.serving.len()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!((view.delivery_version, view.shards[0].items), (2, 10));

    let epoch = log.state.map_epoch;
    log.done(&alive(nodes[0], 1, Liveness::Dead));
    assert!(log.state.map_epoch > epoch);
    assert_eq!(publish::view(&log.state).shards[0].serving, [nodes[1]]);
    log.join("c", Role::Node, 1);
    log.done(&Body::RemoveMember { member: nodes[0] });
    let replicas = &log.state.generations[&2].replicas;
    assert!(replicas.iter().all(|r| r.len() == 2 && !r.contains(&nodes[0])), "another node takes over: {replicas:?}");
}

/// Decision 6: coverage is measured against what the loader counted, so a replica with less must not serve.
#[test]
fn a_replica_that_counts_otherwise_than_the_loader_does_not_serve() {
    let mut log = Log::new();
    let node = log.join("a", Role::Node, 1);
    let router = log.join("r", Role::Router, 1);
    log.done(&model(1));
    log.ready(node, &[], &[1], &[]);
    log.ready(router, &[], &[1], &[1]);
    log.done(&Body::ActivateModel { version: 1, expect_active: 0 });
    log.done(&load(1, 1));
    let counted = |items, ads| {
        let key = ShardKey { shard: 0, generation: 1, model: [1; 32] };
        let ready = Ready { shards: [(key, ShardCount { items, ads })].into(), ..Ready::default() };
        Body::ReportReady { member: node, incarnation: 1, ready }
    };
    for (items, ads) in [(9, 20), (10, 19), (11, 20)] {
        log.done(&counted(items, ads));
        assert!(log.refused(&Body::ActivateGeneration { generation: 1 }).starts_with("not_ready"));
    }
    log.done(&counted(10, 20));
    log.done(&Body::ActivateGeneration { generation: 1 });
}

/// A report that says too much is cut where it comes in: refused, it would be proposed again for ever.
#[test]
fn a_long_refusal_does_not_keep_a_report_out() {
    let mut log = Log::new();
    let node = log.join("a", Role::Node, 1);
    let refusals = (0..100u32)
        .map(|n| wire::Refusal { subject: vec![n as u8; 300], reason: "ü".repeat(200), rests: n % 2 == 0 })
        .collect();
    let beat = wire::HeartbeatRequest { refusals, ..wire::HeartbeatRequest::default() };
    let ready = convert::ready::parse(&convert::ready::Lists::from(&beat)).expect("read");
    assert_eq!(ready.refusals.len(), 64);
    assert!(ready.refusals.iter().all(|(subject, why)| subject.len() == 256 && why.reason.len() == 256));
    log.done(&Body::ReportReady { member: node, incarnation: 1, ready: ready.clone() });
    assert_eq!(log.state.members[&node].ready, ready, "so the leader does not say it again");
}

#[test]
fn replicas_that_nobody_had_room_for_go_to_the_next_node() {
    let mut log = Log::new();
    let nodes = [log.join("a", Role::Node, 1), log.join("b", Role::Node, 1)];
    log.done(&model(1));
    log.done(&load(3, 2));
    log.done(&alive(nodes[0], 1, Liveness::Dead));
    log.done(&Body::RemoveMember { member: nodes[0] });
    assert_eq!(log.state.generations[&1].replicas, vec![vec![nodes[1]]; 3]);
    log.join("r", Role::Router, 1);
    assert_eq!(log.state.generations[&1].replicas, vec![vec![nodes[1]]; 3], "a router holds no shard");
    let third = log.join("c", Role::Node, 1);
    assert_eq!(log.state.generations[&1].replicas, vec![vec![nodes[1], third]; 3]);
}

#[test]
fn each_control_plane_has_a_formation_of_its_own() {
    let formed = |key: &str, proposed_ms| {
        let mut state = State::genesis(CLUSTER);
        let bytes = convert::command::to_wire("", proposed_ms, &register(key, Role::Control, 1)).encode_to_vec();
        apply(&mut state, 1, &convert::command::decode(&bytes).expect("a command"));
        state.formation
    };
    assert_eq!(State::genesis(CLUSTER).formation, 0);
    assert_eq!(formed("a", 1), formed("a", 1));
    assert_ne!(formed("a", 1), formed("a", 2));
    assert_ne!(formed("a", 1), formed("b", 1));
}

#[test]
fn wrong_auctions_and_placements_are_refused() {
    let mut log = Log::new();
    let good = auction::auction_of_genesis();
    let wrong = |change: &dyn Fn(&mut Auction)| {
        let mut wish = good.clone();
        change(&mut wish);
        Body::SetAuction(wish)
    };
    let wrongs = [
        wrong(&|a| a.position_factors_ppm = vec![]),
        wrong(&|a| a.position_factors_ppm = vec![1, 2]),
        wrong(&|a| a.position_factors_ppm = vec![5, 0]),
        wrong(&|a| a.position_factors_ppm = vec![1; 17]),
        wrong(&|a| a.per_advertiser = 0),
        wrong(&|a| a.ranked_total = 0),
        wrong(&|a| a.retrieved_total = a.ranked_total - 1),
        wrong(&|a| a.shadow_bid = f64::NAN),
        wrong(&|a| a.shadow_bid = -1.0),
        wrong(&|a| a.shadow_bid = 1.1e13),
        wrong(&|a| a.quality.squashing_ppm = 1_000_001),
        wrong(&|a| a.gap_effect_ppm = vec![1_000_001]),
        wrong(&|a| a.cascade_ppm = 500_000),
        wrong(&|a| a.page_threshold_cpm_micros = 10_000_000_001),
        wrong(&|a| (a.mechanism, a.cascade_ppm, a.page_threshold_cpm_micros) = (Mechanism::Vcg, 500_000, 1)),
    ];
    for body in &wrongs {
        let command = Command { id: String::new(), digest: [0; 32], proposed_ms: 0, body: body.clone() };
        assert!(matches!(apply(&mut log.state, 1, &command), Outcome::Refused(_)), "{body:?}");
    }
    assert_eq!(log.state.auction, good);
    let vcg = Auction { mechanism: Mechanism::Vcg, page_threshold_cpm_micros: 250_000, ..good };
    log.done(&Body::SetAuction(vcg.clone()));
    assert_eq!(log.state.auction, vcg, "as it came out of the log");
    let kept = decode(&encode(&log.state, &Position::default()), CLUSTER).expect("a state").0;
    assert_eq!(kept.auction, vcg, "as it came out of a snapshot");
    let shown = convert::view::to_wire(&publish::view(&log.state)).auction.expect("rules");
    assert_eq!(shown.page_threshold_cpm_micros, 250_000);
    let home = auction::placement_of_genesis();
    let wrongs = [
        Placement { slots: 0, ..home.clone() },
        Placement { slots: 17, ..home.clone() },
        Placement { max_load_ppm: 0, ..home.clone() },
        Placement { name: String::new(), ..home.clone() },
    ];
    for wish in wrongs {
        assert!(log.refused(&Body::SetPlacement(wish)).starts_with("invalid_argument"));
    }
    log.done(&Body::SetPlacement(Placement { name: "feed".to_owned(), ..home }));
    log.done(&Body::RemovePlacement { name: "home".to_owned() });
    assert!(log.refused(&Body::RemovePlacement { name: "home".to_owned() }).starts_with("not_found"));
}

/// Commands that often hit what is there, and sometimes do not.
fn body() -> impl Strategy<Value = Body> {
    let role = prop_oneof![Just(Role::Node), Just(Role::Router), Just(Role::Control)];
    let liveness = prop_oneof![Just(Liveness::Dead), Just(Liveness::Serving), Just(Liveness::Draining)];
    let ready = (proptest::collection::btree_set((0u32..3, 1u64..4, 1u8..3), 0..6), 1u8..3, 1u64..4);
    prop_oneof![
        (0u8..5, role, 1u64..3).prop_map(|(key, role, inc)| register(&format!("k{key}"), role, inc)),
        (1u64..12, 1u64..3, liveness).prop_map(|(member, inc, liveness)| alive(member, inc, liveness)),
        (1u8..4).prop_map(model),
        (1u64..4, 0u64..4).prop_map(|(version, expect_active)| Body::ActivateModel { version, expect_active }),
        (0u64..4).prop_map(|expect_active| Body::RollbackModel { expect_active }),
        (1u8..4).prop_map(|hash| Body::PublishModel(publish(hash, Staging::Later))),
        (1u64..4).prop_map(|version| Body::StageModel { version }),
        (1u64..4).prop_map(|version| Body::RetireModel { version }),
        (1u64..4, 0u64..4).prop_map(|(version, expect_active)| begin(version, expect_active, RolloutMode::Canary)),
        (1u64..4, 0u32..3).prop_map(|(version, step)| Body::StepRollout { version, step }),
        (1u64..4).prop_map(|version| Body::EndRollout { version, reason: "r".to_owned(), by: EndedBy::Guard }),
        (1u32..4, 1u32..3).prop_map(|(shards, replicas)| load(shards, replicas)),
        (1u64..6).prop_map(|generation| Body::ActivateGeneration { generation }),
        (1u64..12).prop_map(|member| Body::RemoveMember { member }),
        (1u8..4, 1u8..4).prop_map(|(key, held)| ties::set_tie_key(ties::made(key), ties::made(held))),
        (1u8..4).prop_map(|key| ties::set_tie_key(ties::made(key), auction::auction_of_genesis().tie_key)),
        (1u64..4, any::<bool>(), 0u32..3, 1u64..4).prop_map(|(campaign, paused, multiplier, ad_group)| {
            let status = if paused { Status::Paused } else { Status::Active };
            let groups = vec![delivery::pause_group(ad_group, status)];
            let paced = Change { multiplier_ppm: Some(multiplier), ..delivery::pause(campaign, status) };
            let change = Change { ad_groups: groups, ..paced };
            delivery::publish_delivery(vec![change])
        }),
        (1u64..12, 1u64..3, ready).prop_map(|(member, incarnation, (shards, model, generation))| {
            let key = |(shard, generation, model): (u32, u64, u8)| ShardKey { shard, generation, model: [model; 32] };
            let shards = shards.into_iter().map(|s| (key(s), ShardCount { items: 10, ads: 20 })).collect();
            let models = [[model; 32]].into();
            let ready = Ready { shards, models, generations: [generation].into(), ..Ready::default() };
            Body::ReportReady { member, incarnation, ready }
        }),
    ]
}

/// What must hold after every command.
fn check(state: &State) {
    for generation in state.generations.values() {
        assert_eq!(generation.replicas.len(), generation.shards.len());
        for placed in &generation.replicas {
            assert!(placed.len() <= generation.copies as usize, "more replicas than asked for: {placed:?}");
            assert!(placed.windows(2).all(|pair| pair[0] < pair[1]), "distinct and in order: {placed:?}");
        }
    }
    assert!(state.pending_model.is_none() || state.pending_model != state.active_model);
    assert!(state.active_model.is_none_or(|v| state.models.contains_key(&v)));
    assert!(state.staged().count() <= super::MODELS_STAGED_MAX);
    let candidate = state.rollout.as_ref().map(|r| r.version);
    for named in [state.active_model, state.previous_model, state.pending_model, candidate].into_iter().flatten() {
        assert_eq!(state.models[&named].place, ModelPlace::Staged, "members hold what is named");
    }
    assert!(candidate.is_none() || candidate != state.active_model);
    for shard in &publish::view(state).shards {
        assert!(shard.serving.iter().all(|id| shard.replicas.contains(id) && state.members[id].alive));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// ST1: equal logs give equal digests, also through a snapshot in the middle; and nothing visible changes
    /// without a new epoch.
    #[test]
    fn equal_logs_give_equal_digests(
        log in proptest::collection::vec((0u8..20, body()), 1..60),
        cut in 0usize..60,
    ) {
        let (mut one, mut two) = (State::genesis(CLUSTER), State::genesis(CLUSTER));
        for (at, (id, body)) in log.iter().enumerate() {
            let index = at as u64 + 1;
            let id = if *id == 0 { String::new() } else { format!("c{id}") };
            let command = read(&id, index, body);
            let before = convert::view::to_wire(&publish::view(&one));
            let answer = apply(&mut one, index, &command);
            let after = convert::view::to_wire(&publish::view(&one));
            prop_assert!(after.map_epoch > before.map_epoch || after == before, "{body:?} changed the view unseen");
            prop_assert_eq!(apply(&mut two, index, &command), answer);
            if at == cut {
                two = decode(&encode(&two, &Position::default()), CLUSTER).expect("a state").0;
            }
            check(&one);
        }
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(digest(&one), digest(&two));
    }

    /// Bytes from elsewhere never panic the decoder.
    #[test]
    fn a_broken_snapshot_is_refused_or_read(at in 0usize..2_000, byte: u8, length in 0usize..2_000) {
        let mut log = Log::new();
        log.join("a", Role::Node, 1);
        log.done(&model(1));
        log.done(&load(2, 1));
        let mut bytes = encode(&log.state, &Position::default());
        if let Some(target) = bytes.get_mut(at) {
            *target = byte;
        }
        bytes.truncate(length.max(1));
        drop(decode(&bytes, CLUSTER));
        prop_assert!(decode(&encode(&log.state, &Position::default()), "other").is_err());
    }
}
