//! How do row groups get into a file and back?

use super::group::{Cell, Column, Group, Kind, Presence};
use super::{Columnar, damaged};
use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// As lines are compressed.
const ZSTD_LEVEL: i32 = 3;
/// Text of a dictionary before values are written in full. A row group has no more: a user's features, repeated with each
/// of his candidates, stay in it.
const DICTIONARY_BYTES_MAX: usize = super::GROUP_BYTES_MAX;

type Rows<'a, 'f> = SerializedRowGroupWriter<'a, &'f File>;

/// Writes row groups.
pub(super) struct Writer<'a> {
    out: SerializedFileWriter<&'a File>,
    columns: Vec<Column>,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(file: &'a File, columns: Vec<Column>) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
            // Of row groups: pages of features have no order that a search could use.
            .set_statistics_enabled(EnabledStatistics::Chunk);
        let out = SerializedFileWriter::new(file, schema(&columns)?, Arc::new(properties.build()))?;
        Ok(Self { out, columns })
    }

    pub(super) fn write(&mut self, group: &Group) -> io::Result<()> {
        let mut rows = self.out.next_row_group()?;
        for (column, cells) in self.columns.iter().zip(&group.columns) {
            match column.kind {
                Kind::Unsigned | Kind::Signed => put::<Int64Type>(&mut rows, column, cells, |cell| match cell {
                    Cell::Integer(number) => Some(*number),
                    Cell::Null | Cell::Real(_) | Cell::Text(_) => None,
                })?,
                Kind::Real => put::<DoubleType>(&mut rows, column, cells, |cell| match cell {
                    Cell::Real(number) => Some(*number),
                    Cell::Null | Cell::Integer(_) | Cell::Text(_) => None,
                })?,
                Kind::Text => put::<ByteArrayType>(&mut rows, column, cells, |cell| match cell {
                    Cell::Text(text) => Some(text.clone()),
                    Cell::Null | Cell::Integer(_) | Cell::Real(_) => None,
                })?,
            }
        }
        rows.close()?;
        Ok(())
    }

    /// Writes what makes it a file.
    pub(super) fn end(self) -> io::Result<()> {
        self.out.close()?;
        Ok(())
    }
}

fn schema(columns: &[Column]) -> io::Result<TypePtr> {
    let field = |column: &Column| {
        let (stored, meant) = match column.kind {
            Kind::Unsigned => (PhysicalType::INT64, Some(LogicalType::integer(64, false))),
            Kind::Signed => (PhysicalType::INT64, None),
            Kind::Real => (PhysicalType::DOUBLE, None),
            Kind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let repetition = match column.presence {
            Presence::Required => Repetition::REQUIRED,
            Presence::Optional => Repetition::OPTIONAL,
        };
        let field = Type::primitive_type_builder(column.name, stored).with_logical_type(meant);
        field.with_repetition(repetition).build().map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<TypePtr>, _>>()?;
    Ok(Arc::new(Type::group_type_builder("line").with_fields(fields).build()?))
}

/// Writes the next column. A cell of another kind is missing, and the writer refuses what has too few values.
fn put<D: DataType>(
    rows: &mut Rows<'_, '_>,
    column: &Column,
    cells: &[Cell],
    value: impl Fn(&Cell) -> Option<D::T>,
) -> io::Result<()> {
    let values: Vec<D::T> = cells.iter().filter_map(value).collect();
    // Whether there is a value; a column that always has one has no such list.
    let levels: Option<Vec<i16>> = match column.presence {
        Presence::Required => None,
        Presence::Optional => Some(cells.iter().map(|cell| i16::from(!matches!(cell, Cell::Null))).collect()),
    };
    let mut out = rows.next_column()?.ok_or_else(|| damaged("more columns than the schema has"))?;
    out.typed::<D>().write_batch(&values, levels.as_deref(), None)?;
    out.close()?;
    Ok(())
}

/// The lines of a file, one row group in memory at a time.
pub struct Lines<L> {
    reader: SerializedFileReader<File>,
    /// For each column of the log, which one of the file it is.
    places: Vec<usize>,
    next: usize,
    group: Group,
    row: usize,
    of: PhantomData<L>,
}

impl<L: Columnar> Lines<L> {
    /// Of a Parquet file of this log.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(file: File) -> io::Result<Self> {
        let reader = SerializedFileReader::new(file)?;
        let known = reader.metadata().file_metadata().schema_descr();
        let place = |column: &Column| {
            let found = known.columns().iter().position(|field| field.path().parts() == [column.name]);
            found.ok_or_else(|| damaged(format!("no column {}", column.name)))
        };
        let places: Vec<usize> = L::columns().iter().map(place).collect::<io::Result<_>>()?;
        let group = Group::of(places.len());
        Ok(Self { reader, places, next: 0, group, row: 0, of: PhantomData })
    }

    /// Row groups of the file.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    /// The next row group that has rows; `false` behind the last.
    fn advance(&mut self) -> io::Result<bool> {
        while self.row == self.group.rows() {
            if self.next == self.row_groups() {
                return Ok(false);
            }
            self.group = self.load(self.next)?;
            (self.next, self.row) = (self.next + 1, 0);
        }
        Ok(true)
    }

    fn load(&self, number: usize) -> io::Result<Group> {
        let group = self.reader.get_row_group(number)?;
        let rows = usize::try_from(group.metadata().num_rows()).map_err(damaged)?;
        let column = |(column, place): (Column, &usize)| {
            let reader = group.get_column_reader(*place)?;
            match column.kind {
                Kind::Unsigned | Kind::Signed => cells::<Int64Type>(reader, rows, Cell::Integer),
                Kind::Real => cells::<DoubleType>(reader, rows, Cell::Real),
                Kind::Text => cells::<ByteArrayType>(reader, rows, Cell::Text),
            }
        };
        let columns = L::columns().into_iter().zip(&self.places).map(column).collect::<io::Result<_>>()?;
        Ok(Group { columns })
    }
}

impl<L: Columnar> Iterator for Lines<L> {
    type Item = io::Result<L>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(L::take(&self.group, &mut self.row)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Reads a column of a row group.
fn cells<D: DataType>(reader: ColumnReader, rows: usize, cell: impl Fn(D::T) -> Cell) -> io::Result<Vec<Cell>> {
    let mut reader = D::get_column_reader(reader).ok_or_else(|| damaged("a column is of another type"))?;
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (read, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    if read != rows {
        return Err(damaged("a column has too few rows"));
    }
    if levels.is_empty() {
        return Ok(values.into_iter().map(cell).collect());
    }
    let mut values = values.into_iter();
    let placed = levels.into_iter().map(|level| match level {
        0 => Ok(Cell::Null),
        _ => values.next().map(&cell).ok_or_else(|| damaged("a column has too few values")),
    });
    placed.collect()
}
