//! Who belongs to the cluster no more?

use super::failed;
use crate::cli::MemberCommand;
use crate::failure::Failure;
use gavel_client::AdminClient;
use gavel_proto::wire::RemoveMember;
use gavel_proto::wire::command::Body;

/// `gavel ctl member`.
pub async fn run(admin: &mut AdminClient, command: MemberCommand) -> Result<(), Failure> {
    let MemberCommand::Remove { member } = command;
    admin.propose(Body::RemoveMember(RemoveMember { member_id: member })).await.map_err(failed)?;
    println!("member {member} is forgotten");
    Ok(())
}
