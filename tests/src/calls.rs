//! What does a test say to a running cluster, and how does it read what comes back?
//!
//! Each call of the HTTP interface and of `gavel ctl` that more than one test makes, once. What a cluster may refuse
//! for a moment is an `Option`, to be waited for; anything else that is not as documented ends the test.

use crate::cluster::{Cluster, gavel, wait_for};
use crate::http;
use gavel_proto::money::Micros;
use gavel_router::clearing::ClearingRecord;
use serde_json::{Value, json};
use std::io::Read;
use std::process::Output;
use std::time::Duration;

/// Longer than anything takes that is promised within seconds, on two cores that others share.
pub const SOON: Duration = Duration::from_secs(20);

/// An ad that was served, with a token for its events.
#[derive(Clone, Debug)]
pub struct Sold {
    /// The auction that it won.
    pub auction: u64,
    /// Versions that the answer was made under.
    pub delivery_version: u64,
    /// The ad.
    pub ad: u64,
    /// Whose it is.
    pub campaign: u64,
    /// Who pays.
    pub advertiser: u64,
    /// The event of its bid, in a word.
    pub bid_type: String,
    /// What one billed event costs.
    pub price_micros: u64,
    /// Its paced bid.
    pub bid_micros: u64,
    /// For its events.
    pub token: String,
}

impl Sold {
    fn of(answer: &Value, entry: &Value) -> Option<Self> {
        let number = |field: &str| entry[field].as_u64();
        let text = |field: &str| entry[field].as_str().map(str::to_owned);
        Some(Self {
            auction: answer["auction_id"].as_u64()?,
            delivery_version: answer["epoch"]["delivery_version"].as_u64()?,
            ad: number("ad")?,
            campaign: number("campaign")?,
            advertiser: number("advertiser")?,
            bid_type: text("bid_type")?,
            price_micros: number("price_micros")?,
            bid_micros: number("bid_micros")?,
            token: text("token")?,
        })
    }

    /// The word of the event that is billed.
    ///
    /// # Panics
    /// When its bid type is none.
    #[must_use]
    pub fn billed(&self) -> &'static str {
        match self.bid_type.as_str() {
            "cpm" | "ocpm" => "impression",
            "cpc" | "ocpc" => "click",
            "cpa" => "conversion",
            other => panic!("{other} is no bid type"),
        }
    }

    /// Its billed event, as it is reported.
    #[must_use]
    pub fn event(&self) -> Value {
        event(self.billed(), &self.token)
    }
}

/// An event, as it is reported.
#[must_use]
pub fn event(kind: &str, token: &str) -> Value {
    json!({"kind": kind, "token": token})
}

/// A request as every shard took part in it.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What it would have been answered.
    pub response: Value,
    /// Ads by reason.
    pub reasons: Vec<Value>,
    /// The line of the clearing log.
    pub clearing: Value,
}

impl Explained {
    /// Whatever took part in the auction: nothing else wins or sets a price.
    ///
    /// # Panics
    /// When the line has no candidates.
    #[must_use]
    pub fn candidates(&self) -> &[Value] {
        self.clearing["inputs"]["candidates"].as_array().expect("candidates")
    }

    /// A campaign's part of it.
    #[must_use]
    pub fn of(&self, campaign: u64) -> Vec<&Value> {
        self.candidates().iter().filter(|c| c["campaign"] == campaign).collect()
    }

    /// How many ads have a reason.
    #[must_use]
    pub fn ads_for(&self, reason: &str) -> u64 {
        let found = self.reasons.iter().find(|r| r["reason"] == reason);
        found.map_or(0, |r| r["ads"].as_u64().expect("a count"))
    }
}

/// A zone whose day neither began nor ends within some hours, so that a test that paces a day stays within it.
#[must_use]
pub fn zone_amid_its_day() -> &'static str {
    let hour = gavel_member::clock::wall_ms() / 3_600_000 % 24;
    if (1..20).contains(&hour) { "UTC" } else { "Asia/Tokyo" }
}

/// What a command said as JSON; complaints come behind it.
#[must_use]
pub fn json_of(said: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(said).into_iter().next()?.ok()
}

impl Cluster {
    /// Where a router listens for HTTP.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn http(&self, router: usize) -> &str {
        self.routers[router].http.as_deref().expect("an address")
    }

    /// The ads with tokens that a request is answered with; `None` unless it is answered.
    #[must_use]
    pub fn sell(&self, router: usize, request: &Value) -> Option<Vec<Sold>> {
        let (status, body) = self.ask(router, request)?;
        let slate = body["slate"].as_array().filter(|_| status == 200)?;
        Some(slate.iter().filter_map(|entry| Sold::of(&body, entry)).collect())
    }

    /// Waits until every router gives tokens: before its first grant of the ledger it has none.
    pub fn wait_tokens(&self) {
        for router in 0..self.routers.len() {
            let sells = || self.sell(router, &http::request(1)).filter(|sold| !sold.is_empty());
            wait_for("an ad with a token", 3 * SOON, sells);
        }
    }

    /// POST /v1/explain; `None` while a shard is missing.
    #[must_use]
    pub fn explain(&self, router: usize, request: &Value) -> Option<Explained> {
        let (status, text) = http::post(self.http(router), "/v1/explain", &request.to_string())?;
        let mut explained: Value = serde_json::from_str(&text).ok()?;
        let is_whole = status == 200 && explained["response"]["coverage"]["fraction"] == 1.0;
        let clearing = serde_json::from_str(explained["clearing"].as_str().filter(|_| is_whole)?).ok()?;
        let reasons = explained["reasons"].as_array()?.clone();
        Some(Explained { response: explained["response"].take(), reasons, clearing })
    }

    /// The same once every shard takes part.
    #[must_use]
    pub fn explained(&self, router: usize, request: &Value) -> Explained {
        wait_for("a whole answer", SOON, || self.explain(router, request))
    }

    /// POST /v1/events: the word for each.
    ///
    /// # Panics
    /// When the router does not answer.
    #[must_use]
    pub fn report(&self, router: usize, events: &[Value]) -> Vec<String> {
        let body = json!({ "events": events }).to_string();
        let (status, text) = http::post(self.http(router), "/v1/events", &body).expect("an answer");
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let words = answer["answers"].as_array().expect("answers").iter();
        words.map(|word| word.as_str().expect("a word").to_owned()).collect()
    }

    /// A campaign as it is in force.
    ///
    /// # Panics
    /// When nobody says so.
    #[must_use]
    pub fn campaign(&self, campaign: u64) -> Value {
        let (status, text) = http::get(self.http(0), &format!("/v1/campaigns/{campaign}")).expect("an answer");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// PATCH /v1/campaigns/ID under a name: status and answer.
    ///
    /// # Panics
    /// When the router does not answer.
    #[must_use]
    pub fn patch(&self, router: usize, campaign: u64, key: &str, change: &Value) -> (u16, Value) {
        let head = format!("PATCH /v1/campaigns/{campaign} HTTP/1.1\r\nIdempotency-Key: {key}");
        let (status, text) = http::send(self.http(router), &head, &change.to_string()).expect("an answer");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    /// The same, in force on every router and node when this returns.
    ///
    /// # Panics
    /// When it is not.
    pub fn change(&self, campaign: u64, key: &str, mut change: Value) {
        change["wait_ms"] = json!(5_000);
        let (status, answer) = self.patch(0, campaign, key, &change);
        assert_eq!((status, &answer["effective"]), (200, &json!(true)), "{answer}");
    }

    /// Sets a budget of a campaign: `daily`, `weekly` or `lifetime`.
    ///
    /// # Panics
    /// When it is refused.
    pub fn budget(&self, (campaign, advertiser): (u64, u64), span: &str, micros: u64) {
        let (campaign, advertiser) = (campaign.to_string(), advertiser.to_string());
        let (span, amount) = (format!("--{span}"), Micros(micros).to_string());
        let asked = ["ledger", "budget", &campaign, "--advertiser", &advertiser, &span, &amount];
        self.ctl(&[&asked[..], &["--zone", zone_amid_its_day()]].concat()).expect("the budget is taken");
    }

    /// `gavel ctl ledger` with these arguments: its exit code, and what it says on both ways.
    #[must_use]
    pub fn ledger(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.ctl_output(&[&["ledger"], arguments].concat());
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said.concat())
    }

    /// The report of `gavel ctl ledger audit` with these arguments, and its exit code; `None` when there is none.
    #[must_use]
    pub fn audit(&self, arguments: &[&str]) -> Option<(Option<i32>, Value)> {
        let (code, said) = self.ledger(&[&["audit", "--json"], arguments].concat());
        Some((code, json_of(&said)?))
    }

    /// The folders of all clearing logs, as the audit takes them.
    #[must_use]
    pub fn clearing_folders(&self) -> String {
        let logs = self.clearing_logs();
        logs.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(",")
    }

    /// `gavel ctl` with these arguments: everything that came of it.
    #[must_use]
    pub fn ctl_output(&self, arguments: &[&str]) -> Output {
        let control = self.controls.iter().map(|c| c.grpc.clone()).collect::<Vec<_>>().join(",");
        gavel(&[&["ctl", "--control", &control], arguments].concat())
    }

    /// Which of the voters leads the control state.
    #[must_use]
    pub fn leader(&self) -> usize {
        wait_for("a leader", SOON, || self.controls.iter().position(|c| c.metric("gavel_control_leader") > 0.0))
    }

    /// Every line that stands whole in the routers' clearing logs.
    ///
    /// # Panics
    /// When a log cannot be read.
    #[must_use]
    pub fn clearing_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for file in self.clearing_logs().iter().flat_map(|folder| std::fs::read_dir(folder).expect("a log")).flatten() {
            let mut text = String::new();
            // A file that is being packed has gone, and is there again when it is looked for once more.
            let Ok(opened) = std::fs::File::open(file.path()) else { continue };
            if file.path().extension().is_some_and(|ending| ending == "zst") {
                let mut unpacked = zstd::Decoder::new(opened).expect("unpacked");
                unpacked.read_to_string(&mut text).expect("text");
            } else {
                let mut opened = opened;
                opened.read_to_string(&mut text).expect("text");
            }
            // A line that is being written, or whose router was killed, has no end.
            lines.extend(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned));
        }
        lines
    }

    /// The same, read.
    ///
    /// # Panics
    /// When a line is no clearing.
    #[must_use]
    pub fn clearings(&self) -> Vec<ClearingRecord> {
        let read = |line: &String| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.clearing_lines().iter().map(read).collect()
    }
}
