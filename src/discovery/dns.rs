//! Names to addresses, with their time to live.
