//! Who is who?
//!
//! Fixed-width ids, one type each, so that a campaign cannot be passed where an advertiser belongs.

/// Declares a `u64` id.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A distinct creative with its ad features; what is embedded and retrieved.
    ItemId, u64);
id!(/// An item with targeting and a campaign; what wins.
    AdId, u64);
id!(/// Holds bid, bid type, status and pacing multiplier.
    CampaignId, u64);
id!(/// Who pays.
    AdvertiserId, u64);
id!(/// A shard of a catalogue generation.
    ShardId, u32);
id!(/// A process of the cluster: the log index of its join entry.
    MemberId, u64);
id!(/// Names one clearing; ties are broken by it.
    AuctionId, u64);
