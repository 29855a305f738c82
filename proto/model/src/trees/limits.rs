//! How large may a model of trees be?

/// Trees of one model. LightGBM's users train some thousand.
pub const TREES_MAX: usize = 20_000;
/// Leaves of one tree: LightGBM's own bound.
pub const LEAVES_MAX: usize = 131_072;
/// Splits of one model: 4 M of them are 32 MB in the fast layout.
pub const SPLITS_MAX: usize = 1 << 22;
/// Features of one model.
pub const TREE_FEATURES_MAX: usize = 65_536;
/// Largest code of a category: up to here an f32, which carries it, holds every integer.
pub const CATEGORY_CODE_MAX: u32 = (1 << 24) - 1;
/// Values of all categories that a file names.
pub const CATEGORY_VALUES_MAX: usize = 1 << 20;
/// Codes in all sets of a model, 64 MB: four for each split, where LightGBM puts some ten into a set of a split on a
/// category and has few of those. Six megabytes of text can name that many.
pub const CATEGORY_CODES_MAX: usize = 1 << 24;
/// Columns of the fast layout, one or more for each feature and one for each set of categories.
pub const COLUMNS_MAX: usize = 65_536;
/// Bytes of the tables from category to sets.
pub const CATEGORY_TABLE_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(COLUMNS_MAX <= 1 << 16, "a split of the fast layout names its column with 16 bits");
const _: () = assert!(LEAVES_MAX as u64 <= u32::MAX as u64 / 2, "a child fits 32 bits");
