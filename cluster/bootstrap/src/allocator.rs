//! Who hands out memory, and when does it go back?
//!
//! jemalloc with its background thread: without it, memory that a burst took is never given back.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads at its start.
const SETTINGS: &[u8] = b"background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:0\0";

/// A C string that never changes.
#[repr(transparent)]
struct Settings(*const u8);

// SAFETY: it points to a constant, which any thread may read.
unsafe impl Sync for Settings {}

/// The symbol that jemalloc looks for; its prefix is that of the Rust build.
// SAFETY: nothing else defines the symbol strongly, and its type is that of `const char *`.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: Settings = Settings(SETTINGS.as_ptr());
