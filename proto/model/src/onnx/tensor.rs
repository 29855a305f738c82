//! Which numbers does an ONNX tensor hold?
//!
//! Typed fields or raw bytes, in eight element types. Half-precision weights become f32 here, so that a bundle may
//! be half as large as its arithmetic. A weight that is not finite is refused: it would make every score that it
//! touches a score that never wins, and silently. A single number of the code is no weight: exporters mask with
//! infinity and guard divisions with NaN, and both stay what they are.

use super::wire::{TensorProto, element};
use crate::error::GraphError;
use crate::limits::{CONSTANT_VALUES_MAX, RANK_MAX};
use half::{bf16, f16};

/// The numbers of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// A tensor that has passed its checks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub dims: Vec<usize>,
    pub numbers: Numbers,
}

/// Reads an initialiser: its values are finite, but for a single number without dimensions.
pub(crate) fn array(proto: &TensorProto) -> Result<Array, GraphError> {
    let wrong = |reason: String| GraphError::Initialiser { name: proto.name.clone(), reason };
    let array = read(proto).map_err(wrong)?;
    let is_number = array.dims.is_empty();
    if is_number || array.is_finite() { Ok(array) } else { Err(wrong("a value is not finite".to_owned())) }
}

/// Reads a constant of the code, where `[1]` is a number too.
pub(crate) fn constant(proto: &TensorProto) -> Result<Array, String> {
    read(proto).and_then(Array::into_code)
}

/// The dimensions of a tensor whose data is in this file.
pub(super) fn dimensions(proto: &TensorProto) -> Result<Vec<usize>, String> {
    if !proto.external_data.is_empty() || proto.data_location != 0 {
        return Err("its data is in another file, which a bundle does not support".to_owned());
    }
    if proto.dims.len() > RANK_MAX {
        return Err(format!("{} dimensions, {RANK_MAX} are possible", proto.dims.len()));
    }
    let mut dims = Vec::with_capacity(proto.dims.len());
    let mut count = 1usize;
    for dim in &proto.dims {
        let dim = usize::try_from(*dim).map_err(|_| format!("a dimension of {dim}"))?;
        count = count.checked_mul(dim).filter(|c| *c <= CONSTANT_VALUES_MAX).ok_or("more values than are possible")?;
        dims.push(dim);
    }
    Ok(dims)
}

fn read(proto: &TensorProto) -> Result<Array, String> {
    let dims = dimensions(proto)?;
    // Bounded by `dimensions`.
    let count: usize = dims.iter().product();
    let numbers = match &proto.raw_data {
        Some(raw) => from_raw(proto.data_type, raw)?,
        None => from_fields(proto)?,
    };
    let found = match &numbers {
        Numbers::Floats(v) => v.len(),
        Numbers::Integers(v) => v.len(),
    };
    if found != count {
        return Err(format!("{found} values for the dimensions {dims:?}"));
    }
    Ok(Array { dims, numbers })
}

impl Array {
    fn is_finite(&self) -> bool {
        match &self.numbers {
            Numbers::Floats(v) => v.iter().all(|x| x.is_finite()),
            Numbers::Integers(_) => true,
        }
    }

    /// As a constant of the code: finite, or a single number.
    pub fn into_code(self) -> Result<Self, String> {
        let single = matches!(&self.numbers, Numbers::Floats(v) if v.len() == 1);
        if single || self.is_finite() { Ok(self) } else { Err("a value is not finite".to_owned()) }
    }
}

fn from_raw(data_type: i32, raw: &[u8]) -> Result<Numbers, String> {
    fn each<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
        let (values, rest) = raw.as_chunks::<N>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are no multiple of {N}", raw.len()));
        }
        Ok(values.iter().map(|v| read(*v)).collect())
    }
    match data_type {
        element::FLOAT => each(raw, f32::from_le_bytes).map(Numbers::Floats),
        element::FLOAT16 => each(raw, |b| f16::from_le_bytes(b).to_f32()).map(Numbers::Floats),
        element::BFLOAT16 => each(raw, |b| bf16::from_le_bytes(b).to_f32()).map(Numbers::Floats),
        element::DOUBLE => each(raw, |b| f64::from_le_bytes(b) as f32).map(Numbers::Floats),
        element::INT64 => each(raw, i64::from_le_bytes).map(Numbers::Integers),
        element::INT32 => each(raw, |b| i64::from(i32::from_le_bytes(b))).map(Numbers::Integers),
        element::INT8 => each(raw, |b| i64::from(i8::from_le_bytes(b))).map(Numbers::Integers),
        element::BOOL => each(raw, |[b]: [u8; 1]| i64::from(b != 0)).map(Numbers::Integers),
        other => Err(format!("element type {other} is not supported")),
    }
}

fn from_fields(proto: &TensorProto) -> Result<Numbers, String> {
    let halves =
        || proto.int32_data.iter().map(|v| u16::try_from(*v).map_err(|_| "a half of more than 16 bits".to_owned()));
    match proto.data_type {
        element::FLOAT => Ok(Numbers::Floats(proto.float_data.clone())),
        element::DOUBLE => Ok(Numbers::Floats(proto.double_data.iter().map(|v| *v as f32).collect())),
        element::FLOAT16 => {
            halves().map(|b| b.map(|b| f16::from_bits(b).to_f32())).collect::<Result<_, _>>().map(Numbers::Floats)
        }
        element::BFLOAT16 => {
            halves().map(|b| b.map(|b| bf16::from_bits(b).to_f32())).collect::<Result<_, _>>().map(Numbers::Floats)
        }
        element::INT64 => Ok(Numbers::Integers(proto.int64_data.clone())),
        element::INT32 | element::INT8 | element::BOOL => {
            Ok(Numbers::Integers(proto.int32_data.iter().map(|v| i64::from(*v)).collect()))
        }
        other => Err(format!("element type {other} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_read_in_both_forms() {
        let raw = TensorProto {
            dims: vec![3],
            data_type: element::INT8,
            raw_data: Some(vec![0x81, 0, 0x7f].into()),
            ..TensorProto::default()
        };
        let typed = TensorProto {
            dims: vec![3],
            data_type: element::INT8,
            int32_data: vec![-127, 0, 127],
            ..TensorProto::default()
        };
        for proto in [raw, typed] {
            let Array { dims, numbers } = array(&proto).unwrap();
            assert_eq!((dims, numbers), (vec![3], Numbers::Integers(vec![-127, 0, 127])));
        }
    }
}
