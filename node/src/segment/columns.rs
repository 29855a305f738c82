//! What is this item's value of that feature?
//!
//! One column a feature, in item order. A column of categories is hashes with 0 for missing, a dense column
//! is floats with NaN for missing, a set column is offsets into weighted hashes. The model bundle decides
//! what to do with them; a segment does not know the model.

use super::{
    container::{Container, Section, Sections},
    document::DocFeature,
    error::SegmentError,
};
use gavel_proto::limits::{FEATURES_MAX, STRING_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnKind {
    /// One hash an item.
    Category,
    /// One number an item.
    Dense,
    /// Weighted hashes.
    Set,
}

/// A feature as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnName {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ColumnKind,
}

/// A column of weighted sets.
#[derive(Clone, Copy, Debug)]
pub struct SetColumn<'a> {
    first: &'a [u32],
    values: &'a [u64],
    weights: &'a [f32],
}

impl<'a> SetColumn<'a> {
    /// The values of an item and their weights; empty beyond the last item.
    #[must_use]
    pub fn of(&self, item: u32) -> (&'a [u64], &'a [f32]) {
        let at = |i: usize| self.first.get(i).map(|n| *n as usize);
        let range = at(item as usize).zip(at(item as usize + 1)).map(|(start, end)| start..end);
        let range = range.unwrap_or(0..0);
        (self.values.get(range.clone()).unwrap_or(&[]), self.weights.get(range).unwrap_or(&[]))
    }
}

enum Column {
    Category(Section<u64>),
    Dense(Section<f32>),
    Set { first: Section<u32>, values: Section<u64>, weights: Section<f32> },
}

/// The features of a segment, open.
pub(crate) struct Columns {
    names: Vec<ColumnName>,
    columns: Vec<Column>,
}

/// The tag of part `part` of column `index`: `F`, the part and the index.
const fn column_tag(index: usize, part: u8) -> u64 {
    (index as u64) << 16 | (part as u64) << 8 | b'F' as u64
}

impl Columns {
    /// Opens and checks the columns that the manifest names.
    pub(crate) fn open(file: &Container, names: Vec<ColumnName>, items: usize) -> Result<Self, SegmentError> {
        let open = |(index, name): (usize, &ColumnName)| match name.kind {
            ColumnKind::Category => Ok(Column::Category(file.section_of(column_tag(index, 0), items)?)),
            ColumnKind::Dense => Ok(Column::Dense(file.section_of(column_tag(index, 0), items)?)),
            ColumnKind::Set => {
                let values = file.section::<u64>(column_tag(index, 1))?;
                let weights = file.section_of::<f32>(column_tag(index, 2), values.len())?;
                let first = file.offsets(column_tag(index, 0), items, values.len())?;
                Ok(Column::Set { first, values, weights })
            }
        };
        let columns = names.iter().enumerate().map(open).collect::<Result<_, SegmentError>>()?;
        Ok(Self { names, columns })
    }

    /// Names and kinds, in the order of their names.
    pub(crate) fn names(&self) -> &[ColumnName] {
        &self.names
    }

    fn find(&self, name: &str) -> Option<&Column> {
        let place = self.names.binary_search_by(|n| n.name.as_str().cmp(name)).ok()?;
        self.columns.get(place)
    }

    pub(crate) fn category(&self, name: &str) -> Option<&[u64]> {
        match self.find(name)? {
            Column::Category(column) => Some(column),
            Column::Dense(_) | Column::Set { .. } => None,
        }
    }

    pub(crate) fn dense(&self, name: &str) -> Option<&[f32]> {
        match self.find(name)? {
            Column::Dense(column) => Some(column),
            Column::Category(_) | Column::Set { .. } => None,
        }
    }

    pub(crate) fn set(&self, name: &str) -> Option<SetColumn<'_>> {
        match self.find(name)? {
            Column::Set { first, values, weights } => Some(SetColumn { first, values, weights }),
            Column::Category(_) | Column::Dense(_) => None,
        }
    }
}

enum Growing {
    Category(Vec<u64>),
    Dense(Vec<f32>),
    Set { first: Vec<u32>, values: Vec<u64>, weights: Vec<f32> },
}

impl Growing {
    fn new(value: &DocFeature) -> Self {
        match value {
            DocFeature::Category(_) => Self::Category(Vec::new()),
            DocFeature::Dense(_) => Self::Dense(Vec::new()),
            DocFeature::Set(_) => Self::Set { first: vec![0], values: Vec::new(), weights: Vec::new() },
        }
    }

    /// Appends missing values up to `items`.
    fn pad(&mut self, items: usize) {
        match self {
            Self::Category(column) => column.resize(items, 0),
            Self::Dense(column) => column.resize(items, f32::NAN),
            Self::Set { first, values, .. } => first.resize(items + 1, values.len() as u32),
        }
    }

    const fn kind(&self) -> ColumnKind {
        match self {
            Self::Category(_) => ColumnKind::Category,
            Self::Dense(_) => ColumnKind::Dense,
            Self::Set { .. } => ColumnKind::Set,
        }
    }
}

/// Collects features while a segment is built.
#[derive(Default)]
pub(crate) struct ColumnsWriter {
    columns: BTreeMap<String, Growing>,
}

impl ColumnsWriter {
    /// Adds the features of item `item`; ordinals ascend.
    pub(crate) fn push(&mut self, item: usize, features: Vec<(String, DocFeature)>) -> Result<(), SegmentError> {
        for (name, value) in features {
            if name.is_empty() || name.len() > STRING_BYTES_MAX {
                return Err(SegmentError::Refused(format!("feature name of {} bytes", name.len())));
            }
            if !self.columns.contains_key(&name) && self.columns.len() == FEATURES_MAX {
                return Err(SegmentError::Refused(format!("more than {FEATURES_MAX} features")));
            }
            let refused = |why: &str| SegmentError::Refused(format!("feature {name}: {why}"));
            let column = self.columns.entry(name.clone()).or_insert_with(|| Growing::new(&value));
            column.pad(item);
            match (column, value) {
                (Growing::Category(column), DocFeature::Category(hash)) if column.len() == item => column.push(hash),
                (Growing::Dense(column), DocFeature::Dense(x)) if column.len() == item => column.push(x),
                (Growing::Set { first, values, weights }, DocFeature::Set(set)) if first.len() == item + 1 => {
                    values.extend(set.iter().map(|(value, _)| *value));
                    weights.extend(set.iter().map(|(_, weight)| *weight));
                    let end = u32::try_from(values.len()).map_err(|_| refused("too many values in the segment"))?;
                    first.push(end);
                }
                (Growing::Category(_) | Growing::Dense(_) | Growing::Set { .. }, _) => {
                    return Err(refused("stated twice, or of two kinds"));
                }
            }
        }
        Ok(())
    }

    /// Writes the sections; answers what the manifest names.
    pub(crate) fn write(self, items: usize, out: &mut Sections) -> Vec<ColumnName> {
        let mut names = Vec::new();
        for (index, (name, mut column)) in self.columns.into_iter().enumerate() {
            column.pad(items);
            names.push(ColumnName { name, kind: column.kind() });
            match column {
                Growing::Category(column) => out.push(column_tag(index, 0), &column),
                Growing::Dense(column) => out.push(column_tag(index, 0), &column),
                Growing::Set { first, values, weights } => {
                    out.push(column_tag(index, 0), &first);
                    out.push(column_tag(index, 1), &values);
                    out.push(column_tag(index, 2), &weights);
                }
            }
        }
        names
    }
}
