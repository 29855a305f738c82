//! How large may a bundle and its graphs be?
//!
//! A bundle comes from outside. Each bound is checked before the memory that it bounds is taken.

/// Bytes of one file of a bundle. Ours: a table of a million rows of 64 f32 is 256 MB.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Files of one bundle.
pub const FILES_MAX: usize = 64;
/// Bytes of a file name.
pub const NAME_BYTES_MAX: usize = 128;
/// Nodes of one graph. Torch writes some 500 for a ranker with ten towers.
pub const NODES_MAX: usize = 20_000;
/// Initialisers of one graph.
pub const INITIALISERS_MAX: usize = 20_000;
/// Inputs of one node, and inputs or outputs of a graph.
pub const PORTS_MAX: usize = 1_024;
/// Attributes of one node.
pub const ATTRIBUTES_MAX: usize = 64;
/// Dimensions of a tensor.
pub const RANK_MAX: usize = 6;
/// Values of one constant. Ours: as many f32 as [`FILE_BYTES_MAX`] holds.
pub const CONSTANT_VALUES_MAX: usize = 1 << 28;
/// Values of one row of a tensor that depends on inputs: 4 MB for each candidate is never meant.
pub const ROW_VALUES_MAX: usize = 1 << 20;
/// Values of a user part, which travels with each request to each node: 1 MB. Keys and values of ten layers over a
/// hundred actions of 64 numbers are half of it.
pub const USER_PART_VALUES_MAX: usize = 1 << 18;
/// Values of one item's activations: 64 KB an item, far above what a catalogue of a million can have in memory.
pub const ACTIVATION_VALUES_MAX: usize = 1 << 14;
/// Values of all the buffers of one program: 1 GB.
pub const ARENA_VALUES_MAX: usize = 1 << 28;
/// Values that constant folding may produce for one tensor: folding must not be a way to blow a small file up.
pub const FOLDED_VALUES_MAX: usize = 1 << 24;
/// Rows of an embedding table and, with them, every integer in a graph: up to here an f32 holds each integer
/// exactly, so that the executor needs one type of buffer.
pub const INTEGER_MAX: i64 = 1 << 24;
/// Buckets of a feature: row 0 stands for a missing value.
pub const BUCKETS_MAX: u32 = (INTEGER_MAX - 1) as u32;
/// Values of a set or sequence feature that reach the model. Ours: half of what a request may carry.
pub const SET_LENGTH_MAX: usize = 512;
/// Values that a tower puts out for the light head: they are kept for every item and read for every retrieved one.
pub const LIGHT_VALUES_MAX: usize = 256;
/// Points of an isotonic calibration.
pub const ISOTONIC_POINTS_MAX: usize = 10_000;
/// Golden rows of one bundle.
pub const GOLDEN_ROWS_MAX: usize = 10_000;
/// Bytes of the golden rows, unpacked.
pub const GOLDEN_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(CONSTANT_VALUES_MAX as u64 * 4 <= FILE_BYTES_MAX, "what a file holds fits the bound");
const _: () = assert!(INTEGER_MAX <= (1 << 24), "an f32 holds every integer up to 2^24");
const _: () = assert!(SET_LENGTH_MAX <= gavel_proto::limits::SET_VALUES_MAX, "a request can fill a set");
