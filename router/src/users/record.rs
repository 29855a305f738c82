//! How does one user lie in the file?
//!
//! Little-endian: u16 length and bytes of the id, u16 features, then for each u16 length and bytes of its name, a
//! kind byte, and the value: u64 category, f32 number, or u32 count with (u64, f32) pairs. Values are hashed already,
//! so the record does not depend on a model; the pairs stand as they were given, because a model may read them as a
//! sequence.

use gavel_model::FeatureValue;
use gavel_proto::limits::{FEATURES_MAX, SET_VALUES_MAX};

const CATEGORY: u8 = 1;
const DENSE: u8 = 2;
const SET: u8 = 3;

/// One user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredUser {
    /// The id.
    pub user_id: String,
    /// Hashed, by name.
    pub features: Vec<(String, FeatureValue)>,
}

/// Appends the record; features beyond the limits are left out.
pub(super) fn write(user: &StoredUser, out: &mut Vec<u8>) {
    text(&user.user_id, out);
    let known = || user.features.iter().filter(|(_, v)| *v != FeatureValue::Missing).take(FEATURES_MAX);
    out.extend_from_slice(&(known().count() as u16).to_le_bytes());
    for (name, value) in known() {
        text(name, out);
        match value {
            FeatureValue::Missing => {}
            FeatureValue::Category(hash) => {
                out.push(CATEGORY);
                out.extend_from_slice(&hash.to_le_bytes());
            }
            FeatureValue::Dense(number) => {
                out.push(DENSE);
                out.extend_from_slice(&number.to_le_bytes());
            }
            FeatureValue::Set(pairs) => {
                let pairs = &pairs[..pairs.len().min(SET_VALUES_MAX)];
                out.push(SET);
                out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
                for (hash, weight) in pairs {
                    out.extend_from_slice(&hash.to_le_bytes());
                    out.extend_from_slice(&weight.to_le_bytes());
                }
            }
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a record back; `None` when it is damaged.
pub(super) fn read(bytes: &[u8]) -> Option<StoredUser> {
    let mut at = Cursor(bytes);
    let user_id = at.text()?;
    let count = usize::from(u16::from_le_bytes(at.take()?));
    let mut features = Vec::with_capacity(count.min(FEATURES_MAX));
    for _ in 0..count {
        let name = at.text()?;
        let [kind] = at.take()?;
        let value = match kind {
            CATEGORY => FeatureValue::Category(u64::from_le_bytes(at.take()?)),
            DENSE => FeatureValue::Dense(f32::from_le_bytes(at.take()?)),
            SET => {
                let pairs = u32::from_le_bytes(at.take()?) as usize;
                let mut set = Vec::with_capacity(pairs.min(SET_VALUES_MAX));
                for _ in 0..pairs {
                    set.push((u64::from_le_bytes(at.take()?), f32::from_le_bytes(at.take()?)));
                }
                FeatureValue::Set(set)
            }
            _ => return None,
        };
        features.push((name, value));
    }
    at.0.is_empty().then_some(StoredUser { user_id, features })
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_every_damaged_one_is_refused() {
        let user = StoredUser {
            user_id: "Zoë".into(),
            features: vec![
                ("age".into(), FeatureValue::Dense(41.5)),
                ("city".into(), FeatureValue::Category(99)),
                ("bought".into(), FeatureValue::Set(vec![(2, 0.5), (1, 2.0), (2, 1.0)])),
            ],
        };
        let mut bytes = Vec::new();
        write(&user, &mut bytes);
        assert_eq!(read(&bytes), Some(user));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), None);
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0xff;
            let _ = read(&bent);
        }
    }
}
