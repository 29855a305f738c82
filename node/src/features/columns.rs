//! Which value has each feature of a bundle in an item?
//!
//! A feature that the catalogue does not have, or has in another kind, is missing for every item: it takes the bundle's
//! default. Embedding an item and logging what it was scored with read it here, so that they cannot differ.

use gavel_model::{FeatureKind, FeatureRow, FeatureSpec, FeatureValue};

use crate::segment::{Content, SetColumn};

/// Where the item features of one bundle stand in one content.
pub struct ItemColumns<'a> {
    columns: Vec<Column<'a>>,
}

enum Column<'a> {
    Absent,
    Category(&'a [u64]),
    Dense(&'a [f32]),
    Set(SetColumn<'a>),
}

impl<'a> ItemColumns<'a> {
    /// Binds features to columns of the same name and kind.
    pub fn bind(specs: &[FeatureSpec], content: &'a Content) -> Self {
        Self { columns: specs.iter().map(|spec| bind(spec, content)).collect() }
    }

    /// Places of the features without a column.
    pub fn absent(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().enumerate().filter(|(_, column)| matches!(column, Column::Absent)).map(|(at, _)| at)
    }

    /// The values of an item.
    pub fn row(&self, item: u32) -> FeatureRow {
        FeatureRow { values: self.columns.iter().map(|column| column.value(item)).collect() }
    }
}

fn bind<'a>(spec: &FeatureSpec, content: &'a Content) -> Column<'a> {
    let column = match spec.kind {
        FeatureKind::Category { .. } => content.category_column(&spec.name).map(Column::Category),
        FeatureKind::Dense { .. } => content.dense_column(&spec.name).map(Column::Dense),
        FeatureKind::Set { .. } | FeatureKind::Sequence { .. } => content.set_column(&spec.name).map(Column::Set),
    };
    column.unwrap_or(Column::Absent)
}

impl Column<'_> {
    fn value(&self, item: u32) -> FeatureValue {
        match self {
            Self::Absent => FeatureValue::Missing,
            Self::Category(column) => match column.get(item as usize) {
                None | Some(0) => FeatureValue::Missing,
                Some(value) => FeatureValue::Category(*value),
            },
            Self::Dense(column) => match column.get(item as usize) {
                Some(number) if number.is_finite() => FeatureValue::Dense(*number),
                Some(_) | None => FeatureValue::Missing,
            },
            Self::Set(column) => {
                let (values, weights) = column.of(item);
                FeatureValue::Set(values.iter().copied().zip(weights.iter().copied()).collect())
            }
        }
    }
}
