//! Does a load keep the good lines, name the bad ones, and repeat itself byte by byte?

use super::{BuildOptions, Built, LoadError, Silent, build};
use expect_test::expect;
use gavel_proto::wire::CatalogueBlock;
use prost::Message;
use std::fs;
use std::io::Write;
use std::path::Path;

const ITEMS: &str = r#"{"item_id":7,"advertiser_id":3,"categories":["IAB1","IAB2"],"features":{"product_type":"MILK","price":2.5,"set":{"values":["a","b"],"weights":[0.5,2]}},"title":"Milk, fresh","url":"https://example.com/7","image_url":""}
{"item_id":9,"advertiser_id":3,"categories":[],"features":{"price":3},"title":"","url":"","image_url":""}
"#;
const ADS: &str = r#"{"ad_id":70,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"store","any_of":["1","2"],"none_of":[]}]}
{"ad_id":90,"item_id":9,"campaign_id":30,"targeting":[]}
"#;
const CAMPAIGNS: &str = r#"{"campaign_id":30,"advertiser_id":3,"bid_type":"cpc","bid":"0.35","status":"active","multiplier_ppm":1000000,"weekly_budget":"12.5"}
"#;
const USERS: &str = r#"{"user_id":"u1","features":{"segment":"x","bought":["a","b"]}}
"#;

fn run(path: &Path, work: &Path) -> Result<Built, LoadError> {
    build(path, &BuildOptions { shards: 2, work_dir: work.to_path_buf() }, &mut Silent)
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

fn good() -> tempfile::TempDir {
    folder(&[("items.jsonl", ITEMS), ("ads.jsonl", ADS), ("campaigns.jsonl", CAMPAIGNS), ("users.jsonl", USERS)])
}

fn hashes(built: &Built) -> Vec<[u8; 32]> {
    built.blobs().iter().map(|b| b.hash).collect()
}

fn blocks(path: &Path) -> Vec<CatalogueBlock> {
    let bytes = fs::read(path).expect("a blob");
    let mut rest = bytes.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four")) as usize;
        let (packed, plain) = (word(0), word(4));
        let block = zstd::bulk::decompress(&rest[8..8 + packed], plain).expect("a frame");
        assert_eq!(block.len(), plain);
        all.push(CatalogueBlock::decode(block.as_slice()).expect("a block"));
        rest = &rest[8 + packed..];
    }
    all
}

#[test]
fn documents_arrive_as_they_were_written() {
    let (dir, work) = (good(), tempfile::tempdir().expect("a folder"));
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!((built.items(), built.ads(), built.campaigns, built.users), (2, 2, 1, 1));
    assert_eq!((built.lines, built.rejected, built.reject_files.len()), (6, 0, 0));
    let items: Vec<_> = built.shards.iter().flat_map(|s| blocks(&s.blob.path)).flat_map(|b| b.items).collect();
    let milk = items.iter().find(|i| i.item_id == 7).expect("item 7");
    assert_eq!(milk.creative.as_ref().expect("a creative").title, "Milk, fresh");
    assert_eq!(milk.features.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["price", "product_type", "set"]);
    let campaign = &blocks(&built.campaigns_blob.path)[0].campaigns[0];
    assert_eq!((campaign.bid_micros, campaign.budget_micros, campaign.bid_type), (350_000, 12_500_000, 2));
}

#[test]
fn one_file_compressed_files_and_csv_give_the_same_bytes() {
    let (dir, work) = (good(), tempfile::tempdir().expect("a folder"));
    let folder_form = hashes(&run(dir.path(), work.path()).expect("built"));
    let one = folder(&[("all.jsonl", &[USERS, ADS, ITEMS, CAMPAIGNS].concat())]);
    assert_eq!(hashes(&run(&one.path().join("all.jsonl"), work.path()).expect("built")), folder_form);

    let packed = tempfile::tempdir().expect("a folder");
    let at = |name: &str| packed.path().join(name);
    fs::write(at("items.jsonl.zst"), zstd::bulk::compress(ITEMS.as_bytes(), 3).expect("zstd")).expect("written");
    let mut gz = flate2::write::GzEncoder::new(fs::File::create(at("ads.jsonl.gz")).expect("made"), Default::default());
    gz.write_all(ADS.as_bytes()).expect("written");
    gz.finish().expect("ended");
    fs::write(at("campaigns.jsonl"), CAMPAIGNS).expect("written");
    fs::write(at("users.jsonl"), USERS).expect("written");
    assert_eq!(hashes(&run(packed.path(), work.path()).expect("built")), folder_form);

    let rows = folder(&[
        (
            "items.csv",
            "item_id,advertiser_id,categories,feature.product_type,number.price,set.set,title,url\n\
             9,3,,,3,,,\n7,3,IAB1|IAB2,MILK,2.5,a:0.5|b:2,\"Milk, fresh\",https://example.com/7\n",
        ),
        ("ads.csv", "ad_id,item_id,campaign_id,any.store\n90,9,30,\n70,7,30,1|2\n"),
        (
            "campaigns.csv",
            "campaign_id,advertiser_id,bid_type,bid,status,multiplier_ppm,weekly_budget\n30,3,CPC,0.35,active,,12.50\n",
        ),
        ("users.csv", "user_id,feature.segment,set.bought\nu1,x,a|b\n"),
    ]);
    assert_eq!(hashes(&run(rows.path(), work.path()).expect("built")), folder_form);
}

const BAD_CAMPAIGNS: &str = r#"{"campaign_id":32,"advertiser_id":4,"bid_type":"cpm","bid":1}
{"campaign_id":33,"advertiser_id":4,"bid_type":"cpx","bid":1}
{"campaign_id":34,"advertiser_id":4,"bid_type":"cpm","bid":"0.1234567"}
{"campaign_id":35,"advertiser_id":4,"bid_type":"cpm","bid":"-1"}
{"campaign_id":36,"advertiser_id":4,"bid_type":"cpm","bid":"10001"}
{"campaign_id":37,"advertiser_id":4,"bid_type":"cpm","bid":"1","status":"gone"}
{"campaign_id":38,"advertiser_id":4,"bid_type":"cpm","bid":"1","multiplier_ppm":0}
{"campaign_id":39,"advertiser_id":4,"bid_type":"cpm"}
{"user_id":""}
{"campaign_id":40,"advertiser_id":4,"bid_type":"cpm","bid":"1","ad_groups":[{"id":3},{"id":3,"bid":2}]}
{"campaign_id":41,"advertiser_id":4,"bid_type":"cpm","bid":"1","ad_groups":[{"id":3,"bid":"x"}]}
"#;

#[test]
fn bad_lines_are_named_and_cost_only_themselves() {
    let bad = r#"{"item_id":1,"advertiser_id":3,"features":{"price":"x"},"colour":1}
not json
{"item_id":11,"features":{}}
{"item_id":7,"advertiser_id":3}
{"item_id":12,"advertiser_id":3,"title":"no ad names it"}
{"item_id":13,"advertiser_id":3,"features":{"s":{"values":["a"],"weights":[1,2]}}}
"#;
    let ads = r#"{"ad_id":70,"item_id":9,"campaign_id":30}
{"ad_id":71,"item_id":5,"campaign_id":30}
{"ad_id":72,"item_id":7,"campaign_id":31}
{"ad_id":73,"item_id":7,"campaign_id":32}
{"ad_id":74,"campaign_id":32}
{"ad_id":75,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"d"},{"dimension":"d"}]}
{"ad_id":76,"item_id":7,"campaign_id":30,"ad_group":3}
{"ad_id":77,"item_id":7,"campaign_id":30,"ad_group":0}
"#;
    let dir = folder(&[
        ("items.jsonl", &[ITEMS, bad].concat()),
        ("ads.jsonl", &[ADS, ads].concat()),
        ("campaigns.jsonl", &[CAMPAIGNS, BAD_CAMPAIGNS].concat()),
    ]);
    let work = tempfile::tempdir().expect("a folder");
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!((built.items(), built.ads()), (2, 2));
    let mut seen = String::new();
    for file in &built.reject_files {
        seen.push_str(&format!("{}\n", file.file_name().expect("a name").to_string_lossy()));
        seen.push_str(&fs::read_to_string(file).expect("rejects"));
    }
    expect![[r#"
        ads.jsonl.rejects.jsonl
        {"line":3,"reason":"ad 70 stands on an earlier line"}
        {"line":7,"reason":"an ad needs item_id"}
        {"line":8,"reason":"dimension \"d\" stands twice"}
        {"line":10,"reason":"ad_group is 0: leave it out for an ad directly under its campaign"}
        {"line":4,"reason":"ad 71: there is no item 5"}
        {"line":5,"reason":"ad 72: there is no campaign 31"}
        {"line":6,"reason":"ad 73: item 7 is of advertiser 3, campaign 32 of advertiser 4"}
        {"line":9,"reason":"ad 76: campaign 30 has no ad group 3"}
        campaigns.jsonl.rejects.jsonl
        {"line":3,"reason":"bid_type \"cpx\" is not one of cpm, cpc, cpa, ocpm, ocpc"}
        {"line":4,"reason":"bid \"0.1234567\": more than six fractional digits"}
        {"line":5,"reason":"bid \"-1\": not a decimal number: write it as 12.34"}
        {"line":6,"reason":"bid 10001.000000 is above the limit of 10000.000000"}
        {"line":7,"reason":"status \"gone\" is neither active nor paused"}
        {"line":8,"reason":"multiplier_ppm 0 is not in 1..=1000000"}
        {"line":9,"reason":"bid is missing"}
        {"line":10,"reason":"an empty user_id"}
        {"line":11,"reason":"ad group 3 is named twice"}
        {"line":12,"reason":"ad group 3: bid \"x\": not a decimal number: write it as 12.34"}
        items.jsonl.rejects.jsonl
        {"line":3,"reason":"unknown field `colour`, expected one of `item_id`, `ad_id`, `campaign_id`, `advertiser_id`, `user_id`, `categories`, `features`, `title`, `url`, `image_url`, `targeting`, `bid_type`, `bid`, `status`, `multiplier_ppm`, `weekly_budget`, `reserve`, `schedule`, `time_zone`, `frequency`, `ad_group`, `ad_groups` at line 1 column 64","text":"{\"item_id\":1,\"advertiser_id\":3,\"features\":{\"price\":\"x\"},\"colour\":1}"}
        {"line":4,"reason":"expected ident at line 1 column 2","text":"not json"}
        {"line":5,"reason":"advertiser_id is missing"}
        {"line":8,"reason":"feature \"s\": 1 values and 2 weights"}
        {"line":6,"reason":"item 7 stands on another line too"}
        {"line":7,"reason":"no ad names item 12"}
    "#]].assert_eq(&seen);
}

#[test]
fn ads_and_campaigns_arrive_with_their_ad_groups_from_both_forms() {
    let ads_json = r#"{"ad_id":70,"item_id":7,"campaign_id":30,"ad_group":4}
{"ad_id":71,"item_id":7,"campaign_id":30}
{"ad_id":90,"item_id":9,"campaign_id":30,"ad_group":3}
"#;
    let groups = r#""ad_groups":[{"id":4},{"id":3,"bid":"1.25","paused":true}],"status""#;
    let campaigns = CAMPAIGNS.replace("\"status\"", groups);
    let dir = folder(&[("items.jsonl", ITEMS), ("ads.jsonl", ads_json), ("campaigns.jsonl", &campaigns)]);
    let work = tempfile::tempdir().expect("a folder");
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!((built.ads(), built.rejected), (3, 0));
    let named: Vec<(u64, u64)> = ads(&built).iter().map(|ad| (ad.ad_id, ad.ad_group_id)).collect();
    assert_eq!(named, [(70, 4), (71, 0), (90, 3)]);
    let campaign = &blocks(&built.campaigns_blob.path)[0].campaigns[0];
    let found: Vec<_> = campaign.ad_groups.iter().map(|g| (g.ad_group_id, g.bid_micros, g.paused)).collect();
    assert_eq!(found, [(3, 1_250_000, true), (4, 0, false)]);

    let rows = folder(&[
        ("items.jsonl", ITEMS),
        ("ads.csv", "ad_id,item_id,campaign_id,ad_group\n70,7,30,4\n71,7,30,\n90,9,30,3\n"),
        (
            "campaigns.csv",
            "campaign_id,advertiser_id,bid_type,bid,weekly_budget,ad_groups\n30,3,cpc,0.35,12.5,4|3:1.25:paused\n",
        ),
    ]);
    let from_json = hashes(&built);
    assert_eq!(hashes(&run(rows.path(), work.path()).expect("built")), from_json);
}

#[test]
fn nothing_left_and_nothing_there_are_errors() {
    let work = tempfile::tempdir().expect("a folder");
    let empty = tempfile::tempdir().expect("a folder");
    assert!(matches!(run(empty.path(), work.path()), Err(LoadError::NoFiles(_))));
    let bad = folder(&[("items.jsonl", "{}\n"), ("ads.csv", "ad_id,item_id\n1,2,3\n")]);
    assert!(matches!(run(bad.path(), work.path()), Err(LoadError::Empty { lines: 2, .. })));
    let header = folder(&[("ads.csv", "ad_id,colour\n1,2\n")]);
    assert!(matches!(run(header.path(), work.path()), Err(LoadError::Header { .. })));
    let cut = folder(&[]);
    let packed = zstd::bulk::compress(ITEMS.as_bytes(), 3).expect("zstd");
    fs::write(cut.path().join("items.jsonl.zst"), &packed[..packed.len() / 2]).expect("written");
    assert!(matches!(run(cut.path(), work.path()), Err(LoadError::Io(..))));
}

#[test]
fn a_line_without_an_end_is_skipped_not_stored() {
    let long = format!("{{\"item_id\":\"{}\n", "9".repeat(3 * super::source::LINE_BYTES_MAX));
    let dir = folder(&[("items.jsonl", &[&long, ITEMS].concat()), ("ads.jsonl", ADS), ("campaigns.jsonl", CAMPAIGNS)]);
    let work = tempfile::tempdir().expect("a folder");
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!((built.items(), built.rejected), (2, 1));
}

fn ads(built: &Built) -> Vec<gavel_proto::wire::Ad> {
    let mut ads: Vec<_> = built.shards.iter().flat_map(|s| blocks(&s.blob.path)).flat_map(|block| block.ads).collect();
    ads.sort_by_key(|ad| ad.ad_id);
    ads
}

const DECLARED: &str = "[dimensions.store]\n[dimensions.query]\nkind = \"keyword\"\n[dimensions.age]\nkind = \"number\"\n\
                        [dimensions.device]\nvalues = [\"phone\", \"tablet\"]\n";

#[test]
fn targeting_arrives_in_its_normal_form() {
    let ads_json = r#"{"ad_id":70,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"query","any_of":["Men's SHOES"]},{"dimension":"age","ranges":[{"min":18,"below":25},{"above":64}]}],"schedule":["mon-fri 08-18"]}
{"ad_id":90,"item_id":9,"campaign_id":30,"schedule":["sun 0-1"],"time_zone":"+05:30"}
"#;
    let campaigns = CAMPAIGNS.replace("\"status\"", "\"time_zone\":\"europe/berlin\",\"status\"");
    let dir = folder(&[
        ("items.jsonl", ITEMS),
        ("ads.jsonl", ads_json),
        ("campaigns.jsonl", &campaigns),
        ("targeting.toml", DECLARED),
    ]);
    let work = tempfile::tempdir().expect("a folder");
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!(built.rejected, 0);
    let found = ads(&built);
    let query = found[0].targeting.iter().find(|rule| rule.dimension == "query").expect("kept");
    assert_eq!(query.any_of, ["mens shoes"]);
    let schedule = |ad: usize| found[ad].schedule.clone().expect("a schedule");
    assert_eq!((schedule(0).time_zone.as_str(), schedule(1).time_zone.as_str()), ("Europe/Berlin", "+05:30"));
    assert_eq!(schedule(0).hours.iter().map(|word| word.count_ones()).sum::<u32>(), 50);
    let zones: Vec<String> = blocks(&built.shards[0].blob.path)[0].zones.iter().map(|z| z.name.clone()).collect();
    assert_eq!(zones, ["+05:30", "Europe/Berlin", "UTC"]);
    let dimensions = blocks(&built.users_blob.path)[0].dimensions.clone().expect("the dimensions");
    assert!(dimensions.declared);
    assert_eq!(
        dimensions.dimensions.iter().map(|d| (d.name.as_str(), d.kind)).collect::<Vec<_>>(),
        [("age", 2), ("device", 0), ("query", 1), ("store", 0)]
    );

    let rows = folder(&[
        ("items.jsonl", ITEMS),
        (
            "ads.csv",
            "ad_id,item_id,campaign_id,any.query,range.age,schedule,time_zone\n70,7,30,Men's SHOES,18..<25|65..,mon-fri 08-18,\n90,9,30,,,sun 0-1,+05:30\n",
        ),
        ("campaigns.jsonl", &campaigns),
        ("targeting.toml", DECLARED),
    ]);
    let from_rows = ads(&run(rows.path(), work.path()).expect("built"));
    assert_eq!((&from_rows[1], &from_rows[0].schedule), (&found[1], &found[0].schedule));
    assert_eq!(from_rows[0].targeting[0].ranges[1].min, Some(65.0));
}

#[test]
fn targeting_that_does_not_exist_is_refused_with_the_nearest_name() {
    let bad = r#"{"ad_id":71,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"stroe","any_of":["1"]}]}
{"ad_id":72,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"geo","any_of":["1"]}]}
{"ad_id":73,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"device","any_of":["phnoe"]}]}
{"ad_id":74,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"age","any_of":["18"]}]}
{"ad_id":75,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"store","ranges":[{"min":1}]}]}
{"ad_id":76,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"age","ranges":[{"min":30,"max":20}]}]}
{"ad_id":77,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"query","none_of":["?!"]}]}
{"ad_id":78,"item_id":7,"campaign_id":30,"schedule":["mon 8"]}
{"ad_id":79,"item_id":7,"campaign_id":30,"schedule":["mon 8-9"],"time_zone":"Europe/Berln"}
{"ad_id":80,"item_id":7,"campaign_id":30,"time_zone":"Europe/Berlin"}
"#;
    let dir = folder(&[
        ("items.jsonl", ITEMS),
        ("ads.jsonl", &[ADS, bad].concat()),
        ("campaigns.jsonl", CAMPAIGNS),
        ("targeting.toml", DECLARED),
    ]);
    let work = tempfile::tempdir().expect("a folder");
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!(built.ads(), 2);
    expect![[r#"
        {"line":3,"reason":"ad 71: dimension \"stroe\" is not declared in targeting.toml: did you mean \"store\"?"}
        {"line":4,"reason":"ad 72: dimension \"geo\" is not declared in targeting.toml, which has age, device, query, store"}
        {"line":5,"reason":"ad 73: dimension \"device\": value \"phnoe\" is not declared in targeting.toml: did you mean \"phone\"?"}
        {"line":6,"reason":"ad 74: dimension \"age\": a number has ranges, no any_of and none_of"}
        {"line":7,"reason":"ad 75: dimension \"store\": a set has any_of and none_of, no ranges"}
        {"line":8,"reason":"ad 76: dimension \"age\": a range needs finite ends with something between them, min or above and max or below"}
        {"line":9,"reason":"ad 77: dimension \"query\": nothing is left of keyword \"?!\" in its normal form"}
        {"line":10,"reason":"schedule \"mon 8\": write days and hours as \"mon-fri 08-18\" or \"sat,sun 10-14,22-02\""}
        {"line":11,"reason":"time_zone \"Europe/Berln\" is not known: did you mean \"Europe/Berlin\"?"}
        {"line":12,"reason":"time_zone without a schedule"}
    "#]].assert_eq(&fs::read_to_string(&built.reject_files[0]).expect("rejects"));

    // Without a declaration the first use decides the kind.
    let ads_json = r#"{"ad_id":70,"item_id":7,"campaign_id":30,"targeting":[{"dimension":"age","ranges":[{"max":30}]}]}
{"ad_id":90,"item_id":9,"campaign_id":30,"targeting":[{"dimension":"age","any_of":["18"]}]}
{"ad_id":91,"item_id":9,"campaign_id":30}
"#;
    let dir = folder(&[("items.jsonl", ITEMS), ("ads.jsonl", ads_json), ("campaigns.jsonl", CAMPAIGNS)]);
    let built = run(dir.path(), work.path()).expect("built");
    assert_eq!((built.ads(), built.rejected), (2, 1));
    let broken =
        folder(&[("items.jsonl", ITEMS), ("ads.jsonl", ADS), ("targeting.toml", "[dimensions.a]\nkind = \"sett\"\n")]);
    let error = run(broken.path(), work.path()).expect_err("a kind that is none").to_string();
    assert!(error.ends_with("dimension \"a\": kind \"sett\" is not one of set, keyword, number"), "{error}");
}
