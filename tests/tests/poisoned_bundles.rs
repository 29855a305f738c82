//! Is every poisoned bundle refused before it serves, with its reason, and is nothing of it left?

use gavel_control::state::command::{Body, Command, PublishModel, Staging};
use gavel_control::state::types::{ModelPolicy, Outcome, Signature};
use gavel_control::state::{State, apply};
use gavel_member::member::Voters;
use gavel_member::signing::{self, SecretKey, SignatureError};
use gavel_node::staging::holdings::SharedHoldings;
use gavel_node::staging::plan::{Blob, Step, Wanted};
use gavel_node::staging::{DataFolder, MemoryBudget, Steps};
use gavel_proto::limits::BLOB_BYTES_MAX;
use gavel_proto::wire::{ModelView, View};
use gavel_tests::poison;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything below a folder, folders left out.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files_below(&path)) } else { all.push(path) }
    }
    all
}

/// A node stages each of them as it would any bundle; it never gets into what searches use, and once nobody wants it
/// any more its folder and its bytes are gone.
#[test]
fn a_node_refuses_every_poisoned_bundle_and_keeps_nothing() {
    let corpus = poison::corpus();
    assert!(corpus.len() >= 40, "only {}", corpus.len());
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let data = DataFolder::open(dir.path()).expect("opened");
    let steps = Steps {
        data: data.clone(),
        // Nobody listens there: the bytes are where a fetch would have put them.
        voters: Arc::new(Voters::new(vec!["127.0.0.1:1".to_owned()]).expect("an address")),
        runtime: runtime.handle().clone(),
        cpu_us: gavel_node::pipeline::thread::cpu_us,
        budget: MemoryBudget::of_bytes(1 << 30),
    };
    let holdings = SharedHoldings::default();
    let mut wrong = Vec::new();
    for poisoned in &corpus {
        let hash = *blake3::hash(&poisoned.packed).as_bytes();
        let blob = Blob { hash, bytes: poisoned.packed.len() as u64 };
        std::fs::write(data.blob(&hash), &poisoned.packed).expect("written");
        match steps.carry_out(Step::LoadBundle(blob), &holdings, &mut |_, _| Ok(())) {
            Ok(()) => wrong.push(format!("{}: not refused", poisoned.name)),
            Err(error) if !error.to_string().contains(poisoned.reason) => {
                wrong.push(format!("{}: {error}, which does not say {:?}", poisoned.name, poisoned.reason));
            }
            Err(_) => {}
        }
        assert!(holdings.current().bundles.is_empty(), "{}", poisoned.name);
        data.sweep(&Wanted::default(), None).expect("swept");
        let left = files_below(dir.path());
        assert!(left.is_empty(), "{}: {left:?}", poisoned.name);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    println!("{} poisoned bundles refused", corpus.len());
}

fn publish(state: &mut State, index: u64, wish: PublishModel) -> Outcome {
    let body = Body::PublishModel(wish);
    apply(state, index, &Command { id: String::new(), digest: [0; 32], proposed_ms: index, body })
}

fn wish(hash: u8) -> PublishModel {
    PublishModel {
        hash: [hash; 32],
        bytes: 1_000,
        name: "m".to_owned(),
        uploader: String::new(),
        staging: Staging::Later,
        version: 0,
        signature: None,
        report: String::new(),
    }
}

#[track_caller]
fn refused(outcome: &Outcome, reason: &str) {
    match outcome {
        Outcome::Refused(why) => assert!(why.contains(reason), "{why}"),
        Outcome::Done(number) => panic!("version {number} was taken"),
    }
}

/// What no byte of a bundle shows: an older version again, no signature, a size beyond every limit.
#[test]
fn the_registry_refuses_replays_sizes_and_unsigned_bundles() {
    let mut state = State::genesis("poison");
    assert_eq!(publish(&mut state, 1, PublishModel { version: 5, ..wish(1) }), Outcome::Done(5));
    refused(&publish(&mut state, 2, PublishModel { version: 5, ..wish(2) }), "versions only grow");
    refused(&publish(&mut state, 3, PublishModel { version: 4, ..wish(2) }), "versions only grow");
    refused(&publish(&mut state, 4, PublishModel { version: 6, ..wish(1) }), "version 5 already");
    refused(&publish(&mut state, 5, PublishModel { bytes: 0, ..wish(3) }), "bytes");
    refused(&publish(&mut state, 6, PublishModel { bytes: BLOB_BYTES_MAX + 1, ..wish(3) }), "bytes");
    let retire = Body::RetireModel { version: 5 };
    apply(&mut state, 7, &Command { id: String::new(), digest: [0; 32], proposed_ms: 7, body: retire });
    refused(&publish(&mut state, 8, wish(1)), "retired");
    let (trusted, other) = (SecretKey::generate().expect("a key"), SecretKey::generate().expect("a key"));
    let policy = ModelPolicy { signature_required: true, keys: vec![trusted.public()] };
    let set = Body::SetModelPolicy(policy);
    apply(&mut state, 9, &Command { id: String::new(), digest: [0; 32], proposed_ms: 9, body: set });
    refused(&publish(&mut state, 10, wish(4)), "signed");
    let by = |key: &SecretKey| Some(Signature { key: key.public(), bytes: key.sign(&[4; 32], 0) });
    refused(&publish(&mut state, 11, PublishModel { signature: by(&other), ..wish(4) }), "signed");
    assert_eq!(publish(&mut state, 12, PublishModel { signature: by(&trusted), ..wish(4) }), Outcome::Done(6));
}

/// A member looks for itself, whatever the voters let pass.
#[test]
fn a_member_refuses_a_bundle_that_nobody_trusted_has_signed() {
    let key = SecretKey::generate().expect("a key");
    let policy = gavel_proto::wire::ModelPolicy { signature_required: true, keys: vec![key.public().to_vec()] };
    let check = |signature: Vec<u8>, signed_by: Vec<u8>| {
        let model = ModelView { version: 2, hash: vec![7; 32], signature, key: signed_by, ..ModelView::default() };
        let view = View { staged_models: vec![model], model_policy: Some(policy.clone()), ..View::default() };
        signing::check(&view, &[7; 32])
    };
    let good = key.sign(&[7; 32], 2).to_vec();
    assert_eq!(check(good.clone(), key.public().to_vec()), Ok(()));
    assert_eq!(check(Vec::new(), Vec::new()), Err(SignatureError::Missing));
    assert_eq!(check(good[..63].to_vec(), key.public().to_vec()), Err(SignatureError::Wrong));
    assert_eq!(check(key.sign(&[7; 32], 1).to_vec(), key.public().to_vec()), Err(SignatureError::Wrong));
}
