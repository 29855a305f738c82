//! How much of anything may there be?
//!
//! Every limit of the system stands here, so that a reader finds them in one place and the relations
//! between them are checked at compile time. Sources: the security and data-plane chapters of the
//! specification; a number of our own says so.

/// Bytes of an ad request on the wire.
pub const AD_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an internal message (search, view, append).
pub const INTERNAL_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of what the registry keeps of a publisher's report: a few sentences. Ours.
pub const MODEL_REPORT_BYTES_MAX: usize = 1_024;
/// Bytes of one chunk of a blob or a snapshot.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one blob: a shard's documents or a bundle. Ours: 3 million ads take 0.4 GB.
pub const BLOB_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes of a decompressed catalogue block.
pub const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of any string that comes from outside.
pub const STRING_BYTES_MAX: usize = 256;
/// Values of one dimension or one weighted set in a request.
pub const SET_VALUES_MAX: usize = 1_024;
/// Dimensions with a condition, in a request or on one ad.
pub const TERMS_MAX: usize = 64;
/// Dimensions of one catalogue.
pub const DIMENSIONS_MAX: usize = 256;
/// Ranges of one dimension on one ad.
pub const RANGES_MAX: usize = 32;
/// Time zones of one catalogue: more than there are.
pub const ZONES_MAX: usize = 1_024;
/// Offsets of one time zone. Ours: two a year for half a century, twice.
pub const ZONE_OFFSETS_MAX: usize = 256;
/// Features in a request or on one document.
pub const FEATURES_MAX: usize = 256;
/// Blocked advertisers, categories and campaigns in one request, each.
pub const BLOCKED_MAX: usize = 1_024;
/// Organic items in one request.
pub const ORGANIC_MAX: usize = 512;
/// Slots of one auction.
pub const SLOTS_MAX: u32 = 16;
/// Dimensions of an embedding.
pub const VECTOR_DIMENSIONS_MAX: usize = 2_048;
/// Items retrieved or ranked for one request, over all shards.
pub const CANDIDATES_MAX: u32 = 1_000;
/// Prediction heads of one bundle.
pub const HEADS_MAX: usize = 16;
/// Shards of one generation.
pub const SHARDS_MAX: u32 = 1_024;
/// Replicas of one shard.
pub const REPLICAS_MAX: u32 = 8;
/// Items of one shard; an ordinal is a u32.
pub const SHARD_ITEMS_MAX: u64 = 64_000_000;
/// Members of a cluster.
pub const MEMBERS_MAX: usize = 4_096;
/// Shards, under several generations and models, that one member may report as ready.
pub const READY_SHARDS_MAX: usize = (SHARDS_MAX * REPLICAS_MAX) as usize;
/// Models, generations and refusals that one member may report, each: far above the few that it keeps.
pub const READY_OTHERS_MAX: usize = 64;
/// Placements of a cluster. Ours: one per surface of a large application.
pub const PLACEMENTS_MAX: usize = 256;
/// Bytes of a command to the control plane.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a snapshot of the control state: members at a few KiB each, and everything else, with room.
pub const SNAPSHOT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of all blobs that a voter holds. Ours: two generations of 200 million ads with their bundles.
pub const BLOBS_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of all blobs of a cluster in an object store. Ours: sixteen times what a voter's disk takes.
pub const STORE_BYTES_MAX: u64 = 16 * BLOBS_BYTES_MAX;
/// Objects of a cluster that are looked at in an object store, to find those that nobody names.
pub const STORE_OBJECTS_MAX: usize = 100_000;
/// Connections of one listener, together.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Default deadline of an ad request.
pub const DEADLINE_MS_DEFAULT: u64 = 100;
/// Smallest deadline a client may set.
pub const DEADLINE_MS_MIN: u64 = 10;
/// Largest deadline a client may set.
pub const DEADLINE_MS_MAX: u64 = 500;
/// Ads explained one by one in an explain answer.
pub const EXPLAINED_ADS_MAX: usize = 1_000;
/// Items that a search for measuring may retrieve and rank on one shard. Ours: all of a shard of the demo's size.
pub const MEASURED_ITEMS_MAX: u32 = 200_000;
/// Longest search for measuring that a node runs: it may rank a whole shard.
pub const MEASURED_MS_MAX: u64 = 30_000;
/// Time of each search of a probe: an exact one may scan a million items on a busy core.
pub const PROBE_MS: u64 = 5_000;
/// Bytes of an answer for measuring: every scored ad of a node's shards.
pub const MEASURED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest bid: 10,000 currency units per event, in micros.
pub const BID_MICROS_MAX: u64 = 10_000_000_000;
/// Largest shadow bid, currency micros per engagement unit: the largest bid for a thousandth of an engagement.
pub const SHADOW_BID_MAX: f64 = 1e13;
/// Events of one entry of the ledger's log (reliability 5.1).
pub const LEDGER_EVENTS_MAX: usize = 512;
/// Largest budget, lease or price of the ledger: a thousand million currency units, in nanos.
pub const LEDGER_AMOUNT_NANOS_MAX: i64 = 1_000_000_000_000_000_000;
/// Campaigns with a budget.
pub const LEDGER_CAMPAIGNS_MAX: usize = 1_000_000;
/// Leases at once. Ours: 64 routers with two for each of 2,000 campaigns.
pub const LEDGER_LEASES_MAX: usize = 256_000;
/// Issuers that may still be referred to: a week's starts of all routers.
pub const LEDGER_ISSUERS_MAX: usize = 65_536;
/// Keys of tokens: one a day for the window, with room.
pub const LEDGER_KEYS_MAX: usize = 64;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 256;
/// Frequency rules of one campaign. Ours: a few windows of each scope.
pub const FREQUENCY_RULES_MAX: usize = 8;
/// Impressions that a frequency rule may allow: what a counter of a byte holds.
pub const FREQUENCY_COUNT_MAX: u8 = 255;
/// Counters of one user. Ours: what a user sees of capped campaigns in a month; beyond it nothing more is granted.
pub const FREQUENCY_COUNTERS_MAX: usize = 512;
/// Counters that one impression goes into: the rules of its campaign, and windows that others have over the advertiser.
pub const FREQUENCY_COUNTERS_PER_AD_MAX: usize = 64;
/// Ops, and users, of one message between nodes. Ours: well below the limit of a message.
pub const FREQUENCY_COPIES_MAX: usize = 4_096;
/// Capped campaigns, and capped ads, of one search; beyond it everything that is counted is left out.
pub const CAPPED_MAX: usize = 2_048;
/// Changes of one command to delivery. Ours: with every field they stay below a command's bytes.
pub const DELIVERY_CHANGES_MAX: usize = 4_096;
/// Ad groups of one campaign. Ours: with all of them what is said of a campaign stays below 8 KiB.
pub const AD_GROUPS_MAX: usize = 256;
/// Ad groups of one catalogue, over all its campaigns. Ours: a node has a row of about 64 bytes for each, copied for each
/// of the 16 delivery versions that it keeps, 1 GiB at most.
pub const CATALOGUE_AD_GROUPS_MAX: usize = 1_048_576;
/// Changes of ad groups of one command to delivery, over all its campaigns. Ours: beside a full batch of campaigns they
/// stay below a command's bytes.
pub const AD_GROUP_CHANGES_MAX: usize = 8_192;
/// Ad groups of which something is said beyond the catalogue, over all campaigns. Ours: two of each campaign, which
/// a member's file of them has room for.
pub const AD_GROUP_OVERRIDES_MAX: usize = 2 * DELIVERY_OVERRIDES_MAX;
/// Campaigns of which something is said beyond the catalogue. Ours: more than the largest catalogue measured.
pub const DELIVERY_OVERRIDES_MAX: usize = 262_144;
/// Delivery versions whose changes the control state keeps: a member that missed more gets the whole.
pub const DELIVERY_DELTAS_MAX: usize = 64;
/// Campaigns named by all of these together.
pub const DELIVERY_DELTA_CAMPAIGNS_MAX: usize = 65_536;
/// Campaigns that a router may leave out of one search, on top of those that its request blocks. Ours: 128 KiB a call, for
/// the moment until nodes have a version.
pub const EXCLUDED_CAMPAIGNS_MAX: usize = 16_384;
/// Longest wait until a change of campaigns is in force, in milliseconds.
pub const CAMPAIGN_WAIT_MS_MAX: u32 = 30_000;
/// Campaigns of one report of what a router served. Ours: whole flights of all of them stay below a message.
pub const SERVED_LINES_MAX: usize = 2_048;
/// Campaigns times routers of which the pacer holds what was served. Ours: 1 GiB at a week of conversions each.
pub const SERVED_PARTS_MAX: usize = 500_000;
/// Command receipts kept for idempotency.
pub const RECEIPTS_MAX: usize = 10_000;
/// Bytes of a file of auctions to clear. Ours: 100,000 auctions of a few hundred bytes.
pub const CLEAR_FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Auctions of such a file.
pub const CLEAR_AUCTIONS_MAX: usize = 100_000;
/// Bids of one of its auctions.
pub const CLEAR_BIDS_MAX: usize = 10_000;
/// Slots of one of its auctions. Ours: far above any page, and a price per slot stays cheap.
pub const CLEAR_SLOTS_MAX: usize = 1_000;
/// Characters of one of its numbers.
pub const CLEAR_NUMBER_BYTES_MAX: usize = 256;
/// Decimal exponent of one of its numbers; beyond it the exact integers would be large for no reason.
pub const CLEAR_EXPONENT_MAX: u32 = 64;

const _: () = assert!(EXCLUDED_CAMPAIGNS_MAX >= 4 * DELIVERY_CHANGES_MAX, "a few full batches of pauses are named");
const _: () = assert!(
    DELIVERY_CHANGES_MAX * 192 + AD_GROUP_CHANGES_MAX * 24 < COMMAND_BYTES_MAX,
    "a full batch with every field is one command"
);
const _: () = assert!(AD_GROUPS_MAX < AD_GROUP_CHANGES_MAX, "all groups of a campaign change in one command");
const _: () = assert!(
    AD_GROUP_OVERRIDES_MAX <= CATALOGUE_AD_GROUPS_MAX,
    "all of which something is said may be in one catalogue"
);
const _: () =
    assert!(DELIVERY_CHANGES_MAX < DELIVERY_DELTA_CAMPAIGNS_MAX, "the changes of the last version are always kept");
const _: () = assert!(
    DELIVERY_OVERRIDES_MAX * 192 + AD_GROUP_OVERRIDES_MAX * 24 < SNAPSHOT_BYTES_MAX / 2,
    "all that is said of campaigns and their ad groups is in a snapshot"
);
const _: () =
    assert!(SERVED_LINES_MAX * 1_900 < INTERNAL_MESSAGE_BYTES_MAX, "a flight has 92 sums of at most 20 bytes");
const _: () = assert!(LEDGER_EVENTS_MAX * 2 * TOKEN_BYTES_MAX < COMMAND_BYTES_MAX, "a full batch is one command");
const _: () = assert!(LEDGER_AMOUNT_NANOS_MAX < i64::MAX / 8, "a few of them add up");
const _: () = assert!(COMMAND_BYTES_MAX < INTERNAL_MESSAGE_BYTES_MAX, "a command travels in one append");
const _: () = assert!(READY_SHARDS_MAX * 64 < COMMAND_BYTES_MAX, "a whole report of readiness is one command");
const _: () =
    assert!(BLOBS_BYTES_MAX >= 4 * BLOB_BYTES_MAX, "the largest blobs of two generations fit beside each other");
const _: () = assert!(CONNECTIONS_MAX >= MEMBERS_MAX, "every member reaches a voter");
const _: () = assert!(SHADOW_BID_MAX >= BID_MICROS_MAX as f64, "an engagement may be worth a bid");
const _: () = assert!(CHUNK_BYTES_MAX < INTERNAL_MESSAGE_BYTES_MAX, "a chunk travels in one message");
const _: () = assert!(
    DEADLINE_MS_MIN < DEADLINE_MS_DEFAULT && DEADLINE_MS_DEFAULT < DEADLINE_MS_MAX,
    "the default is a legal value"
);
const _: () = assert!(DEADLINE_MS_MAX < PROBE_MS && PROBE_MS < MEASURED_MS_MAX, "measuring has more time than serving");
const _: () = assert!(CANDIDATES_MAX < MEASURED_ITEMS_MAX, "measuring ranks more than serving");
const _: () = assert!(INTERNAL_MESSAGE_BYTES_MAX < MEASURED_BYTES_MAX, "and answers more");
const _: () = assert!(SLOTS_MAX < CANDIDATES_MAX, "a full slate needs more candidates than slots");
const _: () = assert!(AD_REQUEST_BYTES_MAX < INTERNAL_MESSAGE_BYTES_MAX, "a search carries what its request carried");
