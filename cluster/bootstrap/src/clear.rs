//! What would the auction decide on these bids?

use crate::cli::Format;
use crate::failure::Failure;
use gavel_proto::limits::CLEAR_FILE_BYTES_MAX;
use std::io::Read;
use std::path::Path;

/// One byte more than the limit is read, so that a file that is too long is seen to be.
const READ_BYTES_MAX: u64 = CLEAR_FILE_BYTES_MAX as u64 + 1;

/// `gavel auction clear FILE`.
pub fn run(file: &Path, format: Format) -> Result<(), Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(READ_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(READ_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let cleared = match format {
        Format::Json => gavel_router::clear::clear_file_json(&text),
        Format::Text => gavel_router::clear::clear_file_text(&text),
    };
    println!("{}", cleared.map_err(|e| Failure::damaged(format!("{}: {e}", file.display())))?.trim_end());
    Ok(())
}
