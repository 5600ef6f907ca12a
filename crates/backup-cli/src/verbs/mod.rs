//! One file for each verb, or for a few that are alike.

pub(crate) mod doctor;
pub(crate) mod hold;
pub(crate) mod keygen;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod verify;
