//! Tests of the parser and the reader.
