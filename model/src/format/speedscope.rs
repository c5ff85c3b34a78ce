//! speedscope's JSON. (Writer follows.)
