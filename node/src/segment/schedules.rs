//! Which ads are closed at this hour?
//!
//! Ads share few schedules: each distinct one (a time zone and hours of the week) is stored once with its
//! ads. What is closed changes only when an hour begins in some zone, so the bitmap of the closed ads is
//! made once for each combination of hours and kept; a request pays one pass over it.
//!
//! Offsets come with the catalogue, so every replica has the same, and the node needs no time-zone database.

use super::{
    bitset::Bitset,
    container::{Container, Section, Sections, tag},
    document::DocSchedule,
    error::SegmentError,
};
use arc_swap::ArcSwap;
use gavel_proto::targeting::{HOURS_PER_WEEK, Hours, hour_of_week};
use std::{collections::BTreeMap, sync::Arc};

const ZONE_FIRST: u64 = tag(b"zon_frst");
const ZONE_FROM: u64 = tag(b"zon_from");
const ZONE_OFFSET: u64 = tag(b"zon_offs");
const ZONE: u64 = tag(b"sch_zone");
const HOURS: u64 = tag(b"sch_hour");
const FIRST: u64 = tag(b"sch_frst");
const ADS: u64 = tag(b"sch_ads ");
/// Combinations of hours that are kept. Ours: serving needs one, and two around the turn of an hour; a
/// replay of a day needs some.
const KEPT: usize = 8;

/// The offsets of one time zone, as a document brings them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DocZone {
    /// Its name.
    pub name: String,
    /// (unix second, seconds east of UTC from then on), ascending.
    pub offsets: Vec<(i64, i32)>,
}

/// The closed ads at one combination of hours, by zone.
struct Closed {
    hours: Vec<u8>,
    ads: Arc<Bitset>,
}

/// The schedules of a segment.
pub(crate) struct Schedules {
    zone_first: Section<u32>,
    zone_from: Section<i64>,
    zone_offset: Section<i32>,
    /// Of each distinct schedule.
    zone: Section<u32>,
    hours: Section<[u64; 3]>,
    first: Section<u32>,
    ads: Section<u32>,
    len: u32,
    kept: ArcSwap<Vec<Arc<Closed>>>,
}

impl Schedules {
    /// Opens and checks.
    pub(crate) fn open(file: &Container, len: u32) -> Result<Self, SegmentError> {
        let zone_from = file.section::<i64>(ZONE_FROM)?;
        let zone_offset = file.section_of::<i32>(ZONE_OFFSET, zone_from.len())?;
        let zones = file.section::<u32>(ZONE_FIRST)?.len().saturating_sub(1);
        let zone_first = file.offsets(ZONE_FIRST, zones, zone_from.len())?;
        let zone = file.section::<u32>(ZONE)?;
        let hours = file.section_of::<[u64; 3]>(HOURS, zone.len())?;
        let ads = file.section::<u32>(ADS)?;
        let first = file.offsets(FIRST, zone.len(), ads.len())?;
        let known = zone.iter().all(|z| (*z as usize) < zones) && ads.iter().all(|ad| *ad < len);
        if !known || hours.iter().any(|words| Hours::of_words(words).is_none()) {
            return Err(file.damaged("a schedule"));
        }
        let kept = ArcSwap::from_pointee(Vec::new());
        Ok(Self { zone_first, zone_from, zone_offset, zone, hours, first, ads, len, kept })
    }

    /// True when every ad may be shown at every hour.
    pub(crate) fn is_empty(&self) -> bool {
        self.zone.is_empty()
    }

    /// The offsets of a zone.
    pub(crate) fn offsets(&self, zone: usize) -> Vec<(i64, i32)> {
        let at = |zone: usize| self.zone_first.get(zone).copied().unwrap_or(0) as usize;
        let starts = self.zone_from.get(at(zone)..at(zone + 1)).unwrap_or(&[]);
        let seconds = self.zone_offset.get(at(zone)..at(zone + 1)).unwrap_or(&[]);
        starts.iter().copied().zip(seconds.iter().copied()).collect()
    }

    /// The hour of the week in each zone.
    fn now(&self, unix_s: i64) -> Vec<u8> {
        let hour = |range: &[u32]| {
            let (from, to) = (range[0] as usize, range[1] as usize);
            let starts = self.zone_from.get(from..to).unwrap_or(&[]);
            // Before the first start its offset holds: a table begins before every request.
            let at = starts.partition_point(|start| *start <= unix_s).saturating_sub(1);
            hour_of_week(unix_s, self.zone_offset.get(from + at).copied().unwrap_or(0)) as u8
        };
        self.zone_first.windows(2).map(hour).collect()
    }

    /// The ads that are closed at this time.
    pub(crate) fn closed(&self, unix_s: i64) -> Arc<Bitset> {
        let now = self.now(unix_s);
        if let Some(kept) = self.kept.load().iter().find(|closed| closed.hours == now) {
            return Arc::clone(&kept.ads);
        }
        let mut closed = Bitset::empty(self.len);
        for (place, (zone, hours)) in self.zone.iter().zip(self.hours.iter()).enumerate() {
            if !open_at(*hours, &now, *zone) {
                self.ads_of(place).iter().for_each(|ad| closed.insert(*ad));
            }
        }
        let ads = Arc::new(closed);
        let newest = Arc::new(Closed { hours: now, ads: Arc::clone(&ads) });
        // Two threads may do it at once; one of them is then kept, and both are right.
        let mut kept = vec![newest];
        kept.extend(self.kept.load().iter().take(KEPT - 1).cloned());
        self.kept.store(Arc::new(kept));
        ads
    }

    fn ads_of(&self, place: usize) -> &[u32] {
        let at = |place: usize| self.first.get(place).copied().unwrap_or(0) as usize;
        self.ads.get(at(place)..at(place + 1)).unwrap_or(&[])
    }

    /// Zone and hour of the week at which an ad is closed, when it is.
    pub(crate) fn closed_at(&self, ad: u32, unix_s: i64) -> Option<(u32, u8)> {
        let now = self.now(unix_s);
        let place = (0..self.zone.len()).find(|place| self.ads_of(*place).binary_search(&ad).is_ok())?;
        let (zone, hours) = (*self.zone.get(place)?, *self.hours.get(place)?);
        (!open_at(hours, &now, zone)).then(|| (zone, now.get(zone as usize).copied().unwrap_or(0)))
    }

    /// Bytes of the kept bitmaps.
    pub(crate) fn owned_bytes(&self) -> u64 {
        self.kept.load().iter().map(|closed| closed.ads.words().len() as u64 * 8).sum()
    }
}

fn open_at(words: [u64; 3], now: &[u8], zone: u32) -> bool {
    let hour = now.get(zone as usize).copied().unwrap_or(0);
    Hours::of_words(&words).is_some_and(|hours| hours.contains(hour.into()))
}

/// Collects schedules while a segment is built.
#[derive(Default)]
pub(crate) struct SchedulesWriter {
    zones: Vec<DocZone>,
    ads: BTreeMap<(u32, Hours), Vec<u32>>,
}

impl SchedulesWriter {
    /// Makes a zone known; one that is known already stays.
    pub(crate) fn zone(&mut self, zone: DocZone) -> Result<(), SegmentError> {
        let sound = !zone.offsets.is_empty() && zone.offsets.is_sorted_by(|a, b| a.0 < b.0);
        if !sound {
            return Err(SegmentError::Refused(format!("time zone {:?} has no offsets in order", zone.name)));
        }
        if !self.zones.iter().any(|known| known.name == zone.name) {
            self.zones.push(zone);
        }
        Ok(())
    }

    /// Adds the schedule of an ad; ads ascend. One that is open at every hour is none.
    pub(crate) fn push(&mut self, ad: u32, schedule: &DocSchedule) -> Result<(), SegmentError> {
        let zone = self.zones.iter().position(|zone| zone.name == schedule.zone);
        let zone = zone.ok_or_else(|| SegmentError::Refused(format!("no offsets of zone {:?}", schedule.zone)))?;
        if schedule.hours.count() < HOURS_PER_WEEK {
            // A catalogue names at most some hundred zones.
            self.ads.entry((zone as u32, schedule.hours)).or_default().push(ad);
        }
        Ok(())
    }

    /// Writes the sections; gives the names of the zones.
    pub(crate) fn write(self, out: &mut Sections) -> Vec<String> {
        let (mut zone_first, mut from, mut offset) = (vec![0u32], Vec::new(), Vec::new());
        for zone in &self.zones {
            from.extend(zone.offsets.iter().map(|(start, _)| *start));
            offset.extend(zone.offsets.iter().map(|(_, seconds)| *seconds));
            zone_first.push(from.len() as u32);
        }
        out.push(ZONE_FIRST, &zone_first);
        out.push(ZONE_FROM, &from);
        out.push(ZONE_OFFSET, &offset);
        let (mut first, mut members) = (vec![0u32], Vec::new());
        for ads in self.ads.values() {
            members.extend_from_slice(ads);
            // An ad has one schedule, so there are no more than ads.
            first.push(members.len() as u32);
        }
        out.push(ZONE, &self.ads.keys().map(|(zone, _)| *zone).collect::<Vec<u32>>());
        out.push(HOURS, &self.ads.keys().map(|(_, hours)| hours.words()).collect::<Vec<[u64; 3]>>());
        out.push(FIRST, &first);
        out.push(ADS, &members);
        self.zones.into_iter().map(|zone| zone.name).collect()
    }
}
