//! Does a bundle come to serve, or go again, as its rollout says, on a cluster of real processes?
//!
//! The bundles are the demo's, varied: one in another embedding space, which is as good and worthless when mixed, and
//! one whose calibrated odds are doubled, which passes everything that can be checked before it serves. Limits on
//! latency are off: two cores hold the whole cluster and its load.

use gavel_model::author::vary::{Variation, vary};
use gavel_tests::cluster::{Cluster, SMALL, wait_for};
use gavel_tests::traffic::{self, Seen};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A rollout under traffic says by then what it has to say.
const PATIENCE: Duration = Duration::from_secs(180);
/// Users under one View whose share is looked at.
const USERS_SEEN_MIN: usize = 150;
/// From the end of the first bad window to the last answer of the bundle.
const ROLLBACK_MAX: Duration = Duration::from_secs(10);

/// Of a core: staging takes what it needs, because a test waits for it.
const AT_ONCE: &str = "1";
/// Of the demo's items, so that a bundle is staged in seconds.
const NTH_ITEM: usize = 10;

fn small(staging_cpu_share: &str) -> Cluster {
    Cluster::start_with(SMALL, &["--staging-cpu-share", staging_cpu_share], NTH_ITEM)
}

fn varied(cluster: &Cluster, name: &str, variation: Variation) -> PathBuf {
    let demo = gavel_tests::repository::demo_bundle();
    let to = cluster.folder().join(name);
    vary(&demo, &to, variation).expect("varied");
    to
}

/// Events of a version of one kind, with their details.
fn events(status: &Value, version: u64, kind: &str) -> Vec<String> {
    let history = status["history"].as_array().cloned().unwrap_or_default();
    let those = history.iter().filter(|e| e["version"] == version && e["kind"] == kind);
    those.map(|e| e["detail"].as_str().unwrap_or_default().to_owned()).collect()
}

fn role(status: &Value, version: u64) -> Option<String> {
    let model = status["models"].as_array()?.iter().find(|m| m["version"] == version)?;
    model["role"].as_str().map(str::to_owned)
}

/// Returns once every router has pinned what the voters say now, and has answered some requests since: what was under
/// way before has ended.
fn answers_go_on(cluster: &Cluster) {
    let epoch = cluster.controls.iter().map(|c| c.metric("gavel_control_map_epoch")).fold(0.0, f64::max);
    for router in &cluster.routers {
        let pinned = || (router.metric("gavel_router_pinned_map_epoch") >= epoch).then_some(());
        wait_for("the router", PATIENCE, pinned);
        let before = router.metric("gavel_router_requests_total");
        wait_for("requests", PATIENCE, || {
            (router.metric("gavel_router_requests_total") >= before + 50.0).then_some(())
        });
    }
}

/// A bundle passes staging and predicts twice the odds: the guards end its canary, every router goes back, and the
/// reason stands where operators look.
#[test]
fn a_drifting_bundle_is_rolled_back_by_itself() {
    let cluster = small(AT_ONCE);
    let drifting = cluster.publish(&varied(&cluster, "drifting", Variation::Odds { factor: 2.0 }));
    let window = Duration::from_secs(1);
    let (reason, seen) = traffic::during(&cluster, || {
        let (version, steps) = (drifting.to_string(), "50:10m,100:10m");
        let asked = ["model", "canary", &version, "--steps", steps, "--window", "1", "--requests-min", "50"];
        cluster.ctl(&[&asked[..], &["--p99-ratio-max", "0"]].concat()).expect("the canary begins");
        let stopped = || events(&cluster.models()?, drifting, "stopped by a guard").pop();
        let reason = wait_for("the guard", PATIENCE, stopped);
        answers_go_on(&cluster);
        reason
    });
    traffic::check_whole(&seen);
    let at = |s: &&Seen| s.at;
    let bad = || seen.iter().filter(|s| s.status == 200 && s.version == drifting);
    let (first, last) = (bad().map(|s| s.at).min().expect("it answered"), bad().map(|s| s.at).max().expect("it did"));
    let took = (last - first).saturating_sub(window);
    println!(
        "rolled back by itself {:.2} s after the end of its first bad window of {window:?}: {reason}; it answered {} of \
         {} requests",
        took.as_secs_f64(),
        bad().count(),
        seen.len()
    );
    assert!(took < ROLLBACK_MAX, "{took:?}");
    // Doubled odds move the mean and the distribution: whichever limit the first windows pass.
    assert!(reason.starts_with("prediction_ratio: ") || reason.starts_with("psi: "), "{reason}");
    let end = seen.iter().filter(|s| s.status == 200).max_by_key(at).expect("answers");
    assert!(end.version != drifting && end.at > last, "traffic went on with what served: {end:?}");
    let shown = cluster.ctl(&["model", "status"]).expect("a status");
    assert!(shown.contains("stopped by a guard") && shown.contains(&reason), "{shown}");
    let status = cluster.models().expect("a status");
    assert_eq!((&status["rollout"], role(&status, drifting).as_deref()), (&Value::Null, Some("")));
    let stops: f64 = cluster.controls.iter().map(|c| c.metric("gavel_control_guard_stops_total")).sum();
    assert!(stops >= 1.0, "{stops}");
}

/// A user sees one bundle whatever router answers, shares are as large as they say and only grow, and a bundle that is
/// as good comes to serve by itself.
#[test]
fn a_canary_has_its_share_on_every_router_and_comes_to_serve() {
    let cluster = small(AT_ONCE);
    let turned = cluster.publish(&varied(&cluster, "turned", Variation::Space { seed: 1 }));
    let ((), seen) = traffic::during(&cluster, || {
        let (version, steps) = (turned.to_string(), "20:8s,60:8s,100:1s");
        let asked = ["model", "canary", &version, "--steps", steps, "--window", "1", "--requests-min", "100"];
        cluster.ctl(&[&asked[..], &["--p99-ratio-max", "0", "--psi-max", "0"]].concat()).expect("the canary begins");
        let serves = || role(&cluster.models()?, turned).filter(|role| role == "active");
        wait_for("the canary to have held its steps", PATIENCE, serves);
    });
    traffic::check_whole(&seen);
    // The View names the share, so answers under one View agree over all routers.
    let mut by_view: BTreeMap<u64, BTreeMap<u64, BTreeSet<u64>>> = BTreeMap::new();
    for s in seen.iter().filter(|s| s.status == 200) {
        by_view.entry(s.map_epoch).or_default().entry(s.user).or_default().insert(s.version);
    }
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    let mut shares: Vec<(BTreeSet<u64>, BTreeSet<u64>)> = Vec::new();
    for (epoch, users) in &by_view {
        let two = users.iter().find(|(_, versions)| versions.len() > 1);
        assert_eq!(two, None, "one bundle a user under View {epoch}");
        let share: BTreeSet<u64> = users.iter().filter(|(_, v)| v.contains(&turned)).map(|(user, _)| *user).collect();
        if users.len() >= USERS_SEEN_MIN {
            sizes.push((share.len(), users.len()));
        }
        shares.push((share, users.keys().copied().collect()));
    }
    println!("users of the candidate, of those who were seen: {sizes:?}");
    // Five standard deviations of a binomial.
    let near = |share: f64| {
        let within = |of: f64| 5.0 * (share * (1.0 - share) / of).sqrt();
        sizes.iter().any(|(size, of)| (*size as f64 / *of as f64 - share).abs() <= within(*of as f64))
    };
    assert!(near(0.2) && near(0.6), "{sizes:?}");
    for pair in shares.windows(2) {
        let gone = pair[0].0.iter().find(|user| pair[1].1.contains(user) && !pair[1].0.contains(user));
        assert_eq!(gone, None, "shares only grow");
    }
    let status = cluster.models().expect("a status");
    // What its publisher measured: the spaces have nothing in common, and each alone is as good as the other.
    let report = status["models"].as_array().and_then(|m| m.last()?["report"].as_str()).expect("a report");
    println!("{report}");
    assert!(report.starts_with("mixed with version 1, ") && report.contains("both matched agree in 1.000"), "{report}");
    assert_eq!(events(&status, turned, "rollout stepped").len(), 2, "{}", status["history"]);
    assert_eq!(events(&status, turned, "activated").len(), 1, "{}", status["history"]);
}

/// A shadow answers nobody. An operator sees how its scores differ while it runs, and finds it in the history
/// afterwards; one that drifts is ended by its guard.
#[test]
fn a_shadow_reports_and_answers_nobody() {
    let cluster = small(AT_ONCE);
    let turned = cluster.publish(&varied(&cluster, "turned", Variation::Space { seed: 1 }));
    let drifting = cluster.publish(&varied(&cluster, "drifting", Variation::Odds { factor: 2.0 }));
    let shadow = |version: u64, share: &str, more: &[&str]| {
        let version = version.to_string();
        let asked = ["model", "shadow", &version, "--share", share, "--window", "1", "--requests-min", "100"];
        cluster.ctl(&[&asked[..], more].concat()).expect("the shadow begins");
    };
    let figures = || {
        let shown = cluster.models()?["rollout"]["shadow"].clone();
        (shown["requests"].as_u64()? >= 100).then_some(shown)
    };
    let ((alike, other, over, stopped), seen) = traffic::during(&cluster, || {
        shadow(turned, "100:20s", &[]);
        let alike = wait_for("the comparison of the equal bundle", PATIENCE, figures);
        let ended = || events(&cluster.models()?, turned, "rollout ended").pop();
        let over = wait_for("the shadow to have held its time", PATIENCE, ended);
        shadow(drifting, "50", &["--prediction-ratio-max", "0"]);
        let other = wait_for("the comparison of the drifting bundle", PATIENCE, figures);
        let shown = cluster.ctl(&["model", "status"]).expect("a status");
        assert!(shown.contains("on the same candidates") && shown.contains("rank correlation"), "{shown}");
        cluster.ctl(&["model", "rollback"]).expect("ended");
        shadow(drifting, "50", &[]);
        let stops = || events(&cluster.models()?, drifting, "stopped by a guard").pop();
        (alike, other, over, wait_for("the guard", PATIENCE, stops))
    });
    traffic::check_whole(&seen);
    let answered: BTreeSet<u64> = seen.iter().filter(|s| s.status == 200).map(|s| s.version).collect();
    assert_eq!(answered.len(), 1, "a shadow answers nobody");
    println!("equal: {alike}\ndrifting: {other}\nhistory: {over}\nguard: {stopped}");
    let number = |figures: &Value, name: &str| figures[name].as_f64().expect("a number");
    assert!((number(&alike, "rank_correlation") - 1.0).abs() < 1e-6, "{alike}");
    assert!((number(&alike, "prediction_ratio") - 1.0).abs() < 1e-4, "{alike}");
    assert!((number(&alike, "revenue_ratio") - 1.0).abs() < 1e-4, "{alike}");
    // Doubled odds of small probabilities are nearly doubled probabilities, and order as before within a kind of bid.
    assert!((1.5..2.0).contains(&number(&other, "prediction_ratio")), "{other}");
    assert!((0.5..1.0).contains(&number(&other, "rank_correlation")), "{other}");
    assert!(number(&other, "revenue_ratio") > 1.0, "{other}");
    assert!(number(&other, "active_rank_ms") > 0.0 && number(&other, "candidate_rank_ms") > 0.0, "{other}");
    assert!(over.contains("held its time") && over.contains("rank correlation 1.0000"), "{over}");
    assert!(stopped.starts_with("prediction_ratio: 1."), "{stopped}");
    let by_hand = events(&cluster.models().expect("a status"), drifting, "rollout ended").pop();
    assert!(by_hand.is_some_and(|reason| reason.contains("ended by an operator: ")), "the figures stay");
}

/// Voters whose disks have lost something of a bundle. A good copy among them is found; without one nobody loads
/// anything, the reason is shown, what serves goes on; and when a copy is mended the bundle arrives by itself.
#[test]
fn bytes_that_voters_have_lost_are_never_loaded() {
    let cluster = small(AT_ONCE);
    let register = |name: &str, seed: u64| {
        let bundle = varied(&cluster, name, Variation::Space { seed });
        cluster.ctl(&["model", "publish", &bundle.to_string_lossy(), "--no-stage"]).expect("registered");
        let model = cluster.models().and_then(|m| m["models"].as_array()?.last().cloned()).expect("a model");
        let hash = model["hash"].as_str().expect("a hash").to_owned();
        let copies: Vec<PathBuf> = cluster.controls.iter().map(|c| c.data.join("blobs").join(&hash)).collect();
        (model["version"].as_u64().expect("a version"), copies)
    };
    let damage = |copy: &PathBuf, cut: bool| {
        let mut bytes = std::fs::read(copy).expect("a voter's copy");
        let middle = bytes.len() / 2;
        if cut {
            bytes.truncate(middle)
        } else {
            bytes[middle] ^= 1
        }
        std::fs::write(copy, bytes).expect("damaged");
    };
    let replicas = |version: u64| {
        let models = cluster.models()?["models"].as_array()?.clone();
        models.into_iter().find(|m| m["version"] == version)?["replicas"].as_array().cloned()
    };
    let ready = |version: u64| {
        let all = replicas(version)?;
        (!all.is_empty() && all.iter().all(|r| r["state"] == "ready")).then_some(())
    };
    let ((), seen) = traffic::during(&cluster, || {
        let (version, copies) = register("half", 1);
        damage(&copies[0], false);
        damage(&copies[1], true);
        cluster.ctl(&["model", "stage", &version.to_string(), "--no-wait"]).expect("accepted");
        wait_for("a good copy to be found", PATIENCE, || ready(version));

        let (version, copies) = register("none", 2);
        let whole = std::fs::read(&copies[2]).expect("a voter's copy");
        damage(&copies[0], true);
        damage(&copies[1], false);
        damage(&copies[2], true);
        cluster.ctl(&["model", "stage", &version.to_string(), "--no-wait"]).expect("accepted");
        let why = wait_for("every replica to say why not", PATIENCE, || {
            let all = replicas(version)?;
            // A copy may yet come, so that nobody has refused it for good.
            let rests = |r: &Value| {
                r["state"] != "refused" && r["reason"].as_str().is_some_and(|why| why.starts_with("tried again"))
            };
            (!all.is_empty() && all.iter().all(rests))
                .then(|| all.iter().map(|r| r["reason"].to_string()).collect::<Vec<_>>().join(", "))
        });
        println!("{why}");
        assert!(why.contains("no voter has it"), "{why}");
        let refused = cluster.ctl(&["model", "activate", &version.to_string()]).expect_err("nobody has it");
        assert!(refused.contains("not_ready"), "{refused}");
        std::fs::write(&copies[1], whole).expect("mended");
        wait_for("the mended copy to arrive", PATIENCE, || ready(version));
        cluster.ctl(&["model", "activate", &version.to_string()]).expect("everybody has it");
        cluster.ctl(&["model", "rollback"]).expect("back");
    });
    traffic::check_whole(&seen);
}

/// Folders of bundles' models below a node's data folder that have a file, by the ending of their names.
fn model_folders(data: &Path, ending: &str, file: &str) -> Vec<PathBuf> {
    let below = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let shards = below(data.join("generations")).flat_map(below).filter(|p| p.is_dir());
    let models = shards.flat_map(|shard| below(shard.join("model")));
    models.filter(|m| m.to_string_lossy().ends_with(ending) && m.join(file).exists()).collect()
}

/// When a file was written.
fn written(path: &Path) -> std::time::SystemTime {
    std::fs::metadata(path).and_then(|m| m.modified()).expect("a file")
}

/// kill -9 of a node in the middle of its second shard: it goes on with the items that were safe, and keeps the bundle
/// and the shard that it had finished.
#[test]
fn a_node_that_is_killed_while_it_stages_goes_on() {
    let mut cluster = small("0.06");
    let bundle = varied(&cluster, "turned", Variation::Space { seed: 1 });
    cluster.ctl(&["model", "publish", &bundle.to_string_lossy(), "--no-wait", "--no-skew"]).expect("accepted");
    let hash = cluster.models().and_then(|m| Some(m["models"].as_array()?.last()?["hash"].as_str()?.to_owned()));
    let hash = hash.expect("a hash");
    let data = cluster.nodes[0].data.clone();
    let half = format!("{hash}.building");
    let finished = wait_for("one shard to be finished and another half embedded", PATIENCE, || {
        let finished = model_folders(&data, &hash, "manifest").pop()?;
        (!model_folders(&data, &half, "progress").is_empty()).then_some(finished)
    });
    cluster.nodes[0].kill();
    let of_bundle = data.join("bundles").join(&hash).join("bundle.toml");
    let before = (written(&finished.join("manifest")), written(&of_bundle));
    cluster.nodes[0].start();
    wait_for("every replica to be ready", PATIENCE, || {
        let models = cluster.models()?["models"].as_array()?.clone();
        let replicas = models.last()?["replicas"].as_array()?.clone();
        (replicas.len() == 4 && replicas.iter().all(|r| r["state"] == "ready")).then_some(())
    });
    let resumed = cluster.nodes[0].metric("gavel_node_staging_resumed_items_total");
    println!("{resumed} items were not embedded again");
    assert!(resumed >= 256.0, "{resumed}");
    assert_eq!((written(&finished.join("manifest")), written(&of_bundle)), before, "what was finished is kept");
    assert!(model_folders(&data, &half, "progress").is_empty(), "nothing half is left");
}
