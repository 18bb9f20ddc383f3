//! End to end: real processes. One binary, so that it is linked once.

mod allocations;
mod bad_rules;
mod capture;
mod clients;
mod crowd;
mod demo;
mod floods;
mod foreign;
mod health;
mod http2;
mod identity;
mod idle;
mod link;
mod matrix;
mod mtls;
mod names;
mod pair;
mod roots;
mod rules;
mod sidecar_input;
mod soak;
mod standalone;
mod tproxy;
mod undeclared;
mod watched;
