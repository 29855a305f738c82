//! Which bid does this ad have: its campaign's, or that of an ad group?
//!
//! A *line* is a campaign with one of its ad groups, or with none (group 0); the ads of a line have one bid. Lines stand
//! in the order of (campaign, ad group), so those of a campaign are a range. Content whose ads name no ad group has none
//! of these sections: its lines are its campaigns, and its bytes those that they were before there were ad groups.

use super::{
    bitset::Bitset,
    container::{Container, Section, Sections, tag},
    content::{Content, at, range},
    error::SegmentError,
};
use std::{collections::BTreeMap, ops::Range};

const LINE_CAMPAIGN: u64 = tag(b"lin_camp");
const LINE_GROUP: u64 = tag(b"lin_grp ");
const LINE_FIRST: u64 = tag(b"lin_frst");
const LINE_ADS: u64 = tag(b"lin_ads ");
const AD_LINE: u64 = tag(b"ad_line ");
const TAGS: [u64; 5] = [LINE_CAMPAIGN, LINE_GROUP, LINE_FIRST, LINE_ADS, AD_LINE];

/// The lines of content whose ads name ad groups, open.
pub(super) struct Lines {
    campaign: Section<u32>,
    group: Section<u64>,
    first: Section<u32>,
    ads: Section<u32>,
    ad_line: Section<u32>,
}

impl Lines {
    /// Writes the lines of ads, given the place of each one's campaign and its ad group; nothing when no ad names one.
    pub(super) fn write(ad_campaign: &[u32], ad_group: &[u64], out: &mut Sections) {
        if ad_group.iter().all(|group| *group == 0) {
            return;
        }
        let mut lines: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
        for (ad, (campaign, group)) in (0..).zip(ad_campaign.iter().zip(ad_group)) {
            lines.entry((*campaign, *group)).or_default().push(ad);
        }
        let (mut first, mut ads, mut ad_line) = (vec![0], Vec::new(), vec![0u32; ad_campaign.len()]);
        for (place, of_line) in (0..).zip(lines.values()) {
            of_line.iter().for_each(|ad| ad_line[*ad as usize] = place);
            ads.extend_from_slice(of_line);
            first.push(ads.len() as u32);
        }
        out.push(LINE_CAMPAIGN, &lines.keys().map(|(campaign, _)| *campaign).collect::<Vec<u32>>());
        out.push(LINE_GROUP, &lines.keys().map(|(_, group)| *group).collect::<Vec<u64>>());
        out.push(LINE_FIRST, &first);
        out.push(LINE_ADS, &ads);
        out.push(AD_LINE, &ad_line);
    }

    /// Opens and checks them, given the place of each ad's campaign and how many campaigns there are; `None` where no
    /// ad names an ad group.
    pub(super) fn open(file: &Container, ad_campaign: &[u32], campaigns: usize) -> Result<Option<Self>, SegmentError> {
        if !TAGS.into_iter().any(|tag| file.has(tag)) {
            return Ok(None);
        }
        let campaign = file.section::<u32>(LINE_CAMPAIGN)?;
        let (lines, ads) = (campaign.len(), ad_campaign.len());
        let opened = Self {
            group: file.section_of(LINE_GROUP, lines)?,
            first: file.offsets(LINE_FIRST, lines, ads)?,
            ads: file.section_of(LINE_ADS, ads)?,
            ad_line: file.section_of(AD_LINE, ads)?,
            campaign,
        };
        let is_known = opened.campaign.iter().all(|place| (*place as usize) < campaigns);
        let is_ordered = opened.campaign.iter().zip(opened.group.iter()).is_sorted_by(|a, b| a < b);
        // The runs hold as many ads as there are and none twice, so what holds of these holds of every ad.
        let is_whole = lines <= ads && (0..opened.len()).all(|line| opened.is_of_its_ads(line, ad_campaign));
        if !is_known || !is_ordered || !is_whole {
            return Err(file.damaged("lines out of order"));
        }
        Ok(Some(opened))
    }

    /// Whether the ads of a line name it, and are of its campaign.
    fn is_of_its_ads(&self, line: u32, ad_campaign: &[u32]) -> bool {
        let (ads, campaign) = (self.ads_of(line), self.campaign.get(line as usize));
        let names_it =
            |ad: &u32| self.ad_line.get(*ad as usize) == Some(&line) && ad_campaign.get(*ad as usize) == campaign;
        ads.is_sorted_by(|a, b| a < b) && ads.iter().all(names_it)
    }

    fn len(&self) -> u32 {
        self.campaign.len() as u32
    }

    fn ads_of(&self, line: u32) -> &[u32] {
        self.ads.get(range(&self.first, line)).unwrap_or(&[])
    }

    fn of_campaign(&self, place: u32) -> Range<u32> {
        let start = self.campaign.partition_point(|campaign| *campaign < place);
        let end = self.campaign.partition_point(|campaign| *campaign <= place);
        start as u32..end as u32
    }
}

impl Content {
    /// The lines of this shard as (campaign, ad group), ascending: a table of delivery state parallel to it makes the
    /// way from an ad to its bid two loads.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        let lines = self.lines.as_ref().map_or(self.campaigns().len() as u32, Lines::len);
        (0..lines).map(|place| self.line(place))
    }

    /// The line at a place in [`Self::lines`].
    #[must_use]
    pub fn line(&self, place: u32) -> (u64, u64) {
        match &self.lines {
            Some(lines) => {
                let campaign = lines.campaign.get(place as usize);
                (campaign.map_or(0, |campaign| at(self.campaigns(), *campaign)), at(&lines.group, place))
            }
            None => (at(self.campaigns(), place), 0),
        }
    }

    /// The place of a line.
    #[must_use]
    pub fn find_line(&self, (campaign, ad_group): (u64, u64)) -> Option<u32> {
        let campaign = self.find_campaign(campaign)?;
        let Some(lines) = &self.lines else { return (ad_group == 0).then_some(campaign) };
        let of_campaign = lines.of_campaign(campaign);
        let groups = lines.group.get(of_campaign.start as usize..of_campaign.end as usize)?;
        groups.binary_search(&ad_group).ok().map(|at| of_campaign.start + at as u32)
    }

    /// The place of an ad's line.
    #[inline]
    #[must_use]
    pub fn line_place(&self, ad: u32) -> u32 {
        match &self.lines {
            Some(lines) => at(&lines.ad_line, ad),
            None => self.campaign_place(ad),
        }
    }

    /// The places of the lines of the campaign at a place.
    #[must_use]
    pub fn campaign_lines(&self, place: u32) -> Range<u32> {
        match &self.lines {
            Some(lines) => lines.of_campaign(place),
            None => place..place.saturating_add(1).min(self.campaigns().len() as u32).max(place),
        }
    }

    /// The ads of the line at a place, ascending.
    #[must_use]
    pub fn ads_of_line(&self, place: u32) -> &[u32] {
        match &self.lines {
            Some(lines) => lines.ads_of(place),
            None => self.ads_of_campaign(place),
        }
    }

    /// The ads of the lines at these places.
    #[must_use]
    pub fn ads_of_lines(&self, places: impl IntoIterator<Item = u32>) -> Bitset {
        let mut ads = Bitset::empty(self.ads());
        for place in places {
            self.ads_of_line(place).iter().for_each(|ad| ads.insert(*ad));
        }
        ads
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::{FileKind, Storage};
    use super::super::testing::{KEY, ads, item, sealed_content};
    use super::super::{ContentBuilder, DocAd};
    use super::*;
    use std::path::Path;

    /// Ads 0 to 5: campaign 0 with groups 7 and 0, campaign 1 with group 7.
    const AD_CAMPAIGN: [u32; 6] = [0, 1, 0, 0, 1, 0];
    const AD_GROUP: [u64; 6] = [7, 7, 0, 7, 7, 0];

    struct Parts {
        campaign: Vec<u32>,
        group: Vec<u64>,
        first: Vec<u32>,
        ads: Vec<u32>,
        ad_line: Vec<u32>,
    }

    fn sound() -> Parts {
        Parts {
            campaign: vec![0, 0, 1],
            group: vec![0, 7, 7],
            first: vec![0, 2, 4, 6],
            ads: vec![2, 5, 0, 3, 1, 4],
            ad_line: vec![1, 2, 0, 1, 2, 0],
        }
    }

    fn container(sections: Sections) -> Container {
        let mut bytes = Vec::new();
        let append = |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok(())
        };
        sections.write(FileKind::Ids, KEY, append).unwrap();
        Container::new(Path::new("ids"), Storage::owned(&bytes), FileKind::Ids, KEY).unwrap()
    }

    fn opened(parts: &Parts, without: Option<u64>) -> Result<Option<Lines>, SegmentError> {
        let mut sections = Sections::default();
        let columns = [
            (LINE_CAMPAIGN, &parts.campaign),
            (LINE_FIRST, &parts.first),
            (LINE_ADS, &parts.ads),
            (AD_LINE, &parts.ad_line),
        ];
        columns.into_iter().filter(|(tag, _)| without != Some(*tag)).for_each(|(tag, c)| sections.push(tag, c));
        if without != Some(LINE_GROUP) {
            sections.push(LINE_GROUP, &parts.group);
        }
        Lines::open(&container(sections), &AD_CAMPAIGN, 2)
    }

    #[test]
    fn what_is_written_is_what_is_sound() {
        let mut sections = Sections::default();
        Lines::write(&AD_CAMPAIGN, &AD_GROUP, &mut sections);
        let lines = Lines::open(&container(sections), &AD_CAMPAIGN, 2).unwrap().unwrap();
        let parts = sound();
        assert_eq!((&lines.campaign[..], &lines.group[..]), (&parts.campaign[..], &parts.group[..]));
        assert_eq!((&lines.first[..], &lines.ads[..]), (&parts.first[..], &parts.ads[..]));
        assert_eq!(&lines.ad_line[..], &parts.ad_line[..]);
        assert_eq!([lines.of_campaign(0), lines.of_campaign(1)], [0..2, 2..3]);
        assert!(lines.of_campaign(2).is_empty());
        assert_eq!([lines.ads_of(1), lines.ads_of(3)], [&[0, 3][..], &[]]);
        assert!(opened(&parts, None).unwrap().is_some());
    }

    #[test]
    fn lines_that_do_not_hold_are_refused() {
        let check = |why: &str, damage: fn(&mut Parts)| {
            let mut parts = sound();
            damage(&mut parts);
            let refused = opened(&parts, None).err();
            assert!(refused.is_some_and(|error| error.is_damage()), "{why}");
        };
        check("a campaign that is not there", |p| p.campaign[2] = 2);
        check("a line twice", |p| p.group[1] = 0);
        check("lines out of order", |p| (p.group[0], p.group[1]) = (7, 0));
        check("campaigns out of order", |p| (p.campaign[0], p.campaign[2]) = (1, 0));
        check("another campaign's line", |p| p.ad_line[0] = 2);
        check("a line that is not there", |p| p.ad_line[0] = 3);
        check("another line of the campaign", |p| p.ad_line[0] = 0);
        check("an ad that is not there", |p| p.ads[5] = 6);
        check("an ad twice", |p| p.ads[1] = 2);
        check("ads out of order", |p| p.ads.swap(0, 1));
        check("ads under each other's lines", |p| p.ads.swap(0, 2));
        check("an ad of another campaign", |p| {
            p.ads.swap(3, 4);
            p.ad_line.swap(1, 3);
        });
        check("an end that is not the last", |p| p.first[3] = 5);
        check("ends out of order", |p| p.first[1] = 5);
        check("too few groups", |p| p.group.truncate(2));
        check("an ad without a line", |p| p.ad_line.truncate(5));
        check("more lines than ads", |p| {
            p.campaign.extend([1; 4]);
            p.group.extend(8..12);
            p.first.extend([6; 4]);
        });
        for tag in TAGS {
            assert!(opened(&sound(), Some(tag)).is_err(), "a part is missing");
        }
    }

    /// Folders that were sealed before there were ad groups have the bytes that are sealed today.
    #[test]
    fn without_groups_nothing_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = |name: &str, group_of: fn(&DocAd) -> u64| {
            let folder = dir.path().join(name);
            let mut builder = ContentBuilder::new(&folder, KEY).unwrap();
            for n in 0..40 {
                builder.push_item(item(n)).unwrap();
                for ad in ads(n, 2) {
                    builder.push_ad(&DocAd { ad_group: group_of(&ad), ..ad }).unwrap();
                }
            }
            builder.seal().unwrap();
            (std::fs::read(folder.join("ids")).unwrap(), Content::open(&folder, KEY).unwrap())
        };
        let sections = |ids: &[u8]| u32::from_le_bytes(ids[28..32].try_into().unwrap());
        let (ids, plain) = sealed("plain", |_| 0);
        assert_eq!(sections(&ids), 8);
        assert_eq!(plain.lines().map(|(campaign, _)| campaign).collect::<Vec<u64>>(), plain.campaigns());
        for ad in 0..plain.ads() {
            let place = plain.campaign_place(ad);
            assert_eq!((plain.line_place(ad), plain.line(place)), (place, (plain.campaign(ad).0, 0)));
            assert_eq!(
                (plain.campaign_lines(place), plain.ads_of_line(place)),
                (place..place + 1, plain.ads_of_campaign(place))
            );
            let found = [plain.find_line((plain.campaign(ad).0, 0)), plain.find_line((plain.campaign(ad).0, 1))];
            assert_eq!(found, [Some(place), None]);
        }
        assert!(plain.campaign_lines(plain.campaigns().len() as u32).is_empty());
        let (ids, grouped) = sealed("grouped", |ad| ad.ad_group);
        assert_eq!(sections(&ids), 8 + TAGS.len() as u32);
        assert_ne!(plain.hash(), grouped.hash());
    }

    #[test]
    fn every_ad_is_on_the_line_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let content = sealed_content(&dir.path().join("content"), 100, 3);
        assert!(content.lines().len() > content.campaigns().len());
        assert!(content.lines().is_sorted_by(|a, b| a < b));
        for (ordinal, ad) in (0..).zip((0..100).flat_map(|n| ads(n, 3))) {
            let (place, line) = (content.line_place(ordinal), (ad.campaign.0, ad.ad_group));
            assert_eq!((content.line(place), content.find_line(line)), (line, Some(place)));
            assert!(content.ads_of_line(place).contains(&ordinal));
            assert!(content.campaign_lines(content.campaign_place(ordinal)).contains(&place));
        }
        let every = 0..content.lines().len() as u32;
        assert_eq!(every.clone().map(|place| content.ads_of_line(place).len()).sum::<usize>(), 300);
        assert_eq!(content.ads_of_lines(every).count(), 300);
        assert_eq!((content.find_line((500, 99)), content.find_line((499, 0))), (None, None));
        // What does not exist is a default.
        assert_eq!((content.line(1_000), content.ads_of_line(1_000).len()), ((0, 0), 0));
    }
}
