//! Is the state what the rules say?
