//! The whole worker over the fake ring (`ring/fake/`): no kernel, no threads, and time that passes at once. A
//! seed that fails fails again, at the same completion.

mod conversations;
mod days;
mod stage;
