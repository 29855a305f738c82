//! Does a cluster of real processes keep its promises while it is hurt?
//!
//! Three voters, two shards with two replicas each on four nodes, two routers; the demo catalogue and its trained
//! model.

use gavel_tests::cluster::{Cluster, Process, REFERENCE, now, wait_for};
use gavel_tests::http;
use serde_json::{Value, json};
use std::time::Duration;

fn winners(body: &Value) -> Vec<(u64, u64, u64)> {
    let entry = |e: &Value| Some((e["slot"].as_u64()?, e["ad"].as_u64()?, e["price_micros"].as_u64()?));
    body["slate"].as_array().map(|s| s.iter().filter_map(entry).collect()).unwrap_or_default()
}

/// The same request with the same seed has the same slate on every router, with prices, epoch and counts.
#[test]
fn serves_and_explains() {
    let cluster = Cluster::start(REFERENCE);
    let (status, first) = cluster.ask(0, &http::request(7)).expect("router 1 answers");
    assert_eq!(status, 200, "{first}");
    let (_, second) = cluster.ask(1, &http::request(7)).expect("router 2 answers");
    assert_eq!(winners(&first).len(), 4, "{first}");
    assert_eq!(winners(&first), winners(&second));
    assert_eq!(first["epoch"], second["epoch"]);
    assert!(first["epoch"]["model_version"].as_u64() >= Some(1), "{first}");
    assert_eq!(first["coverage"]["shards_ok"], 2);
    let funnel = &first["funnel"];
    let stages = ["eligible", "retrieved", "ranked", "winners"];
    let counts: Vec<u64> = stages.iter().map(|s| funnel[s].as_u64().expect("a count")).collect();
    assert!(counts.windows(2).all(|w| w[0] >= w[1]) && counts[3] == 4, "{funnel}");

    let explained = cluster.explained(0, &http::request(7));
    let reasons = &explained.reasons;
    let total: u64 = reasons.iter().map(|r| r["ads"].as_u64().unwrap_or(0)).sum();
    let ads: u64 = shards(&cluster).iter().map(|s| s["ads"].as_u64().unwrap_or(0)).sum();
    assert_eq!(total, ads, "every ad has exactly one reason: {reasons:?}");
    assert_eq!(explained.ads_for("won"), 4);
    the_rules_change(&cluster);
}

/// The cluster has made a key for its ties, which another one replaces; what is not given stays.
fn the_rules_change(cluster: &Cluster) {
    let rules = || serde_json::from_str::<Value>(&cluster.ctl(&["rules"]).expect("shown")).expect("JSON");
    let mut expected = rules();
    assert_eq!(expected["tie_key_public"], false, "{expected}");
    let refused = cluster.ctl(&["rules", "--new-tie-key", "--position-factors", "0.5,0.6"]).expect_err("they rise");
    assert!(refused.contains("0.6 stands behind 0.5"), "{refused}");
    cluster.ctl(&["rules", "--new-tie-key", "--position-factors", "1,0.6,0.4"]).expect("taken");
    // Another voter than the leader may show them, a moment later.
    let changed = wait_for("another key", Duration::from_secs(10), || {
        Some(rules()).filter(|rules| rules["tie_key_id"] != expected["tie_key_id"])
    });
    expected["position_factors_ppm"] = json!([1_000_000, 600_000, 400_000]);
    expected["tie_key_id"] = changed["tie_key_id"].clone();
    assert_eq!(changed, expected);
}

fn shards(cluster: &Cluster) -> Vec<Value> {
    cluster.status().expect("a status")["shards"].as_array().cloned().expect("shards")
}

/// kill -9 of a replica under load: requests go on, and what is reported is never more than what is true.
#[test]
fn a_killed_replica_costs_nothing_and_both_cost_coverage() {
    let mut cluster = Cluster::start(REFERENCE);
    let holders = replicas_of_first_shard(&cluster);
    let items: Vec<u64> = shards(&cluster).iter().map(|s| s["items"].as_u64().expect("items")).collect();
    let share = 1.0 - items[0] as f64 / items.iter().sum::<u64>() as f64;

    kill(&mut cluster.nodes, &holders[0]);
    let (mut failed, mut partial, start) = (0, 0, now());
    let mut seed = 0;
    while start.elapsed() < Duration::from_secs(4) {
        seed += 1;
        match cluster.ask(seed as usize % 2, &http::request(seed)) {
            Some((200, body)) => partial += u32::from(body["coverage"]["fraction"] != 1.0),
            Some(_) | None => failed += 1,
        }
    }
    assert_eq!(failed, 0, "of {seed} requests");
    assert!(seed > 100, "only {seed} requests in 4 s");
    // The other replica answers: only requests that were under way at the kill may have lost the shard.
    assert!(partial <= 20, "{partial} of {seed} answers were partial");

    for holder in &holders[1..] {
        kill(&mut cluster.nodes, holder);
    }
    for router in 0..2 {
        let floor = (share * 10_000.0).floor() / 10_000.0;
        let body = wait_for("an answer without the shard", Duration::from_secs(10), || {
            let (status, body) = cluster.ask(router, &http::request(3))?;
            assert_eq!(status, 200, "{body}");
            (body["coverage"]["fraction"].as_f64()? < 1.0).then_some(body)
        });
        assert_eq!(body["coverage"]["fraction"].as_f64(), Some(floor), "{body}");
        assert_eq!(body["coverage"]["shards_ok"], 1);
        let mut strict = http::request(3);
        strict["min_coverage"] = json!(0.9);
        assert_eq!(cluster.ask(router, &strict).expect("an answer").0, 503);
    }

    let back = cluster.nodes.iter_mut().find(|n| n.grpc == holders[0]).expect("the first one");
    back.start();
    for router in 0..2 {
        cluster.wait_whole(router);
    }
}

fn kill(processes: &mut [Process], grpc: &str) {
    processes.iter_mut().find(|p| p.grpc == grpc).expect("a process of that address").kill();
}

/// The addresses of the nodes that hold shard 0.
fn replicas_of_first_shard(cluster: &Cluster) -> Vec<String> {
    let status = cluster.status().expect("a status");
    let shard = status["shards"].as_array().and_then(|s| s.iter().find(|s| s["shard"] == 0)).expect("shard 0").clone();
    let members = status["members"].as_array().expect("members").clone();
    let address = |id: &Value| members.iter().find(|m| m["member_id"] == *id).and_then(|m| m["address"].as_str());
    let replicas = shard["replicas"].as_array().expect("replicas");
    replicas.iter().map(|id| address(id).expect("an address").to_owned()).collect()
}

/// kill -9 of the leader: ads go on without a failure, and a write succeeds again within 6 s.
#[test]
fn a_killed_leader_stops_writes_for_a_moment_and_ads_never() {
    let mut cluster = Cluster::start(REFERENCE);
    let status = cluster.status().expect("a status");
    let leader = status["leader_id"].as_u64().expect("a leader");
    let index = usize::try_from(leader).expect("small") - 1;
    cluster.controls[index].kill();
    let killed = now();
    let (mut failed, mut seed, mut written) = (0, 0, None);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            wait_for("a control write", Duration::from_secs(20), || {
                cluster.ctl(&["placement", "set", "sidebar", "--slots", "2"]).ok().map(|_| killed.elapsed())
            })
        });
        while !write.is_finished() {
            seed += 1;
            let answered = cluster.ask(seed as usize % 2, &http::request(seed)).is_some_and(|(s, _)| s == 200);
            failed += u32::from(!answered);
        }
        written = write.join().ok();
    });
    assert_eq!(failed, 0, "of {seed} requests");
    assert!(seed > 10, "the load went on");
    let took = written.expect("the write came back");
    assert!(took < Duration::from_secs(6), "the write took {took:?}");
    let mut request = http::request(1);
    request["placement"] = json!("sidebar");
    request["slots"] = json!(2);
    wait_for("the new placement", Duration::from_secs(5), || {
        cluster.ask(0, &request).filter(|(s, _)| *s == 200).map(|_| ())
    });
}

/// All control processes away: ads go on. Everything killed and started again: the state is as it was.
#[test]
fn a_restart_of_everything_keeps_the_state() {
    let mut cluster = Cluster::start(REFERENCE);
    let (_, before) = cluster.ask(0, &http::request(11)).expect("an answer");
    for control in &mut cluster.controls {
        control.kill();
    }
    for seed in 0..50 {
        let answer = cluster.ask(seed % 2, &http::request(11)).expect("an answer");
        assert_eq!((answer.0, winners(&answer.1)), (200, winners(&before)));
    }
    for process in cluster.nodes.iter_mut().chain(&mut cluster.routers) {
        process.kill();
    }
    for process in cluster.controls.iter_mut().chain(&mut cluster.nodes).chain(&mut cluster.routers) {
        process.start();
    }
    cluster.wait_whole(0);
    let (_, after) = cluster.ask(0, &http::request(11)).expect("an answer");
    assert_eq!(winners(&after), winners(&before));
    for version in ["generation", "model_version", "delivery_version"] {
        assert_eq!(after["epoch"][version], before["epoch"][version], "{version}");
    }
}

/// Every kind of bad input gets its documented error, and the cluster goes on.
#[test]
fn bad_input_is_refused_with_a_reason() {
    let cluster =
        Cluster::start(gavel_tests::cluster::Size { controls: 1, nodes: 1, routers: 1, shards: 2, replicas: 1 });
    let address = cluster.http(0);
    let with = |name: &str, value: Value| {
        let mut request = http::request(1);
        request[name] = value;
        request.to_string()
    };
    let long = "x".repeat(300);
    let organic: Vec<Value> = (0..600).map(|i| json!({"id": i.to_string(), "utility": 1.0})).collect();
    let cases: Vec<(&str, String)> = vec![
        ("malformed JSON", "{\"user_id\": ".to_owned()),
        ("no object", "[]".to_owned()),
        ("unknown placement", with("placement", json!("nowhere"))),
        ("no placement", with("placement", json!(""))),
        ("too many slots", with("slots", json!(1_000))),
        ("huge slots", with("slots", json!(u64::MAX))),
        ("deadline too short", with("deadline_ms", json!(1))),
        ("deadline too long", with("deadline_ms", json!(100_000))),
        ("coverage above 1", with("min_coverage", json!(1.5))),
        ("not a number", with("organic", json!([{"id": "a", "utility": "NaN"}]))),
        (
            "infinite",
            with("organic", json!([])).replace("\"organic\":[]", "\"organic\":[{\"id\":\"a\",\"utility\":1e999}]"),
        ),
        ("too many organic items", with("organic", json!(organic))),
        ("long user id", with("user_id", json!(long))),
        ("long term", with("terms", json!([{"dimension": "store", "values": [long]}]))),
        ("undeclared dimension", with("terms", json!([{"dimension": "stroe", "values": ["330"]}]))),
        ("a number for words", with("terms", json!([{"dimension": "store", "number": 330}]))),
        ("milliseconds for seconds", with("ts", json!(1_774_746_000_000_u64))),
        ("wrong feature kind", with("user_features", json!({"age": {"nested": {"too": "deep"}}}))),
        ("unknown field type", with("terms", json!("store=330"))),
    ];
    for (what, body) in cases {
        let (status, text) = http::post(address, "/v1/ads", &body).unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(status, 400, "{what}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{what}: {e}: {text}"));
        assert_eq!(error["error"]["code"], "invalid_argument", "{what}");
        assert!(error["error"]["message"].as_str().is_some_and(|m| m.len() > 10), "{what}: {text}");
    }
    assert_eq!(http::get(address, "/v1/nothing").expect("an answer").0, 404);
    assert_eq!(cluster.ask(0, &http::request(1)).expect("an answer").0, 200, "the cluster goes on");
}
