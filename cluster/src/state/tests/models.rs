//! Do models come to serve, and go, by the rules?

use super::super::Happened;
use super::super::types::{ModelPolicy, Signature};
use super::*;

/// Members hold what serves, what served before and one more; the next one takes the place of what nobody needs.
#[test]
fn a_registered_model_is_staged_on_demand_and_a_retired_one_never_again() {
    let mut log = Log::new();
    let node = log.join("n", Role::Node, 1);
    for hash in 1..=4 {
        assert_eq!(log.done(&Body::PublishModel(publish(hash, Staging::Later))), u64::from(hash));
    }
    assert_eq!(log.state.staged().count(), 0);
    assert_eq!(log.state.models[&2].uploader, "u");
    assert!(log.state.models[&2].published_ms >= 1_000, "the leader's time, carried in the command");
    let activate = |version, expect_active| Body::ActivateModel { version, expect_active };
    log.ready(node, &[], &[1, 2, 3, 4], &[]);
    assert!(log.refused(&activate(1, 0)).contains("not staged"));
    for version in 1..=3 {
        log.done(&Body::StageModel { version });
    }
    log.done(&activate(1, 0));
    log.done(&activate(2, 1));
    log.done(&Body::StageModel { version: 4 });
    let staged = |log: &Log| log.state.staged().map(|m| m.version).collect::<Vec<_>>();
    assert_eq!(staged(&log), [1, 2, 4], "3 was needed by nobody");
    log.done(&begin(4, 2, RolloutMode::Canary));
    assert!(log.refused(&Body::StageModel { version: 3 }).contains("end the rollout"));
    assert!(log.refused(&model(5)).contains("end the rollout"));
    assert!(!log.state.models.contains_key(&5), "what is refused changes nothing");
    assert!(log.refused(&Body::RetireModel { version: 4 }).contains("rollout"));
    assert!(log.refused(&Body::RetireModel { version: 2 }).contains("serves"));
    log.done(&Body::RetireModel { version: 1 });
    assert_eq!((log.state.previous_model, staged(&log)), (None, vec![2, 4]));
    assert!(log.refused(&Body::RollbackModel { expect_active: 2 }).contains("no previous"));
    assert!(log.refused(&Body::StageModel { version: 1 }).contains("retired"));
    assert!(log.refused(&model(1)).contains("retired"), "its bytes do not come back under another version");
    let blobs = log.state.named_blobs();
    assert!(!blobs.contains(&[1; 32]) && blobs.contains(&[3; 32]));
    let told: Vec<Happened> = log.state.history.iter().map(|e| e.happened).collect();
    assert_eq!(told.last(), Some(&Happened::Retired));
}

#[test]
fn versions_given_by_hand_only_grow_and_a_policy_asks_for_a_signature() {
    let mut log = Log::new();
    let given = |hash, version, signature| {
        Body::PublishModel(PublishModel { version, signature, ..publish(hash, Staging::Later) })
    };
    assert_eq!(log.done(&given(1, 7, None)), 7);
    assert!(log.refused(&given(2, 7, None)).contains("not above 7"), "an older upload is not taken again");
    assert!(log.refused(&given(1, 8, None)).contains("version 7 already"));
    assert_eq!(log.done(&given(2, 0, None)), 8);
    let policy = |keys| Body::SetModelPolicy(ModelPolicy { signature_required: true, keys });
    assert!(log.refused(&policy(vec![])).contains("no key"));
    log.done(&policy(vec![[5; 32]]));
    let by = |key: u8| Some(Signature { key: [key; 32], bytes: [0; 64] });
    assert!(log.refused(&given(3, 0, None)).contains("signed"));
    assert!(log.refused(&given(3, 0, by(6))).contains("signed"));
    assert_eq!(log.done(&given(3, 0, by(5))), 9);
}

#[test]
fn a_rollout_needs_everybody_ready_and_ends_with_its_reason() {
    let mut log = Log::new();
    let node = log.join("n", Role::Node, 1);
    let router = log.join("r", Role::Router, 1);
    log.done(&model(1));
    assert!(log.refused(&begin(1, 0, RolloutMode::Canary)).contains("no model is active"));
    for member in [node, router] {
        log.ready(member, &[], &[1], &[]);
    }
    log.done(&Body::ActivateModel { version: 1, expect_active: 0 });
    log.done(&model(2));
    assert!(log.refused(&begin(2, 1, RolloutMode::Canary)).starts_with("not_ready"));
    for member in [node, router] {
        log.ready(member, &[], &[1, 2], &[]);
    }
    assert!(log.refused(&begin(2, 9, RolloutMode::Canary)).contains("the active model is 1"));
    log.done(&begin(2, 1, RolloutMode::Canary));
    let share = |log: &Log| publish::view(&log.state).rollout.map(|r| r.share_ppm);
    assert_eq!(share(&log), Some(10_000));
    assert!(log.refused(&begin(2, 1, RolloutMode::Shadow)).contains("runs"));
    assert!(log.refused(&Body::StepRollout { version: 2, step: 2 }).contains("follow"));
    log.done(&Body::StepRollout { version: 2, step: 1 });
    assert_eq!(share(&log), Some(1_000_000));
    assert!(log.refused(&Body::StepRollout { version: 2, step: 2 }).contains("follow"), "there are two");
    log.done(&Body::EndRollout { version: 2, reason: "psi: 0.4".to_owned(), by: EndedBy::Guard });
    assert_eq!(share(&log), None);
    let last = log.state.history.back().expect("an event");
    assert_eq!((last.version, last.happened, last.detail.as_str()), (2, Happened::Guard, "psi: 0.4"));
    log.done(&begin(2, 1, RolloutMode::Canary));
    log.done(&Body::ActivateModel { version: 2, expect_active: 1 });
    assert_eq!(share(&log), None, "it serves all requests");
}

/// A replica that comes back holds no switch up, and serves only when it could follow the next one.
#[test]
fn a_replica_that_comes_back_has_everything_before_it_serves() {
    let mut log = Log::new();
    let nodes = [log.join("a", Role::Node, 1), log.join("b", Role::Node, 1)];
    let router = log.join("r", Role::Router, 1);
    log.done(&model(1));
    for member in [nodes[0], nodes[1], router] {
        log.ready(member, &[(0, 1, 1), (0, 1, 2)], &[1, 2], &[1]);
    }
    log.done(&Body::ActivateModel { version: 1, expect_active: 0 });
    log.done(&load(1, 2));
    log.done(&Body::ActivateGeneration { generation: 1 });
    log.done(&model(2));
    let serving = |log: &Log| publish::view(&log.state).shards[0].serving.clone();
    assert_eq!(serving(&log), nodes);
    log.join("b", Role::Node, 2);
    assert_eq!(serving(&log), [nodes[0]]);
    log.done(&Body::ActivateModel { version: 2, expect_active: 1 });
    log.ready(nodes[1], &[(0, 1, 2)], &[2], &[]);
    assert_eq!(serving(&log), [nodes[0]], "it could not follow a rollback");
    log.done(&Body::RollbackModel { expect_active: 2 });
    log.done(&Body::ActivateModel { version: 2, expect_active: 1 });
    log.ready(nodes[1], &[(0, 1, 1), (0, 1, 2)], &[1, 2], &[]);
    assert_eq!(serving(&log), nodes);
    log.ready(nodes[0], &[(0, 1, 2)], &[2], &[]);
    log.ready(nodes[1], &[(0, 1, 2)], &[2], &[]);
    assert_eq!(serving(&log), nodes, "nobody could: the shard is answered for all the same");
}
