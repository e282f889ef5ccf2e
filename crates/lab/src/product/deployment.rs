//! The product as most stories begin with it: two sites, each with an enrolled
//! agent.

use anyhow::Result;

use crate::lab::Lab;
use crate::product::{Agent, Controller};

/// A controller at the third place that knows both sites, and their agents,
/// enrolled and started.
#[derive(Debug)]
pub struct Deployment<'lab> {
    /// At the third place.
    pub controller: Controller<'lab>,
    /// Of the site east.
    pub east: Agent,
    /// Of the site west.
    pub west: Agent,
}

impl<'lab> Deployment<'lab> {
    /// Brings it up in a lab that has none.
    ///
    /// # Errors
    /// When something does not start or is refused.
    pub async fn start(lab: &'lab Lab) -> Result<Self> {
        let controller = Controller::start(lab).await?;
        controller.create_sites().await?;
        let east = Agent::enrolled(lab.east(), &controller, &[]).await?;
        let west = Agent::enrolled(lab.west(), &controller, &[]).await?;
        Ok(Self { controller, east, west })
    }

    /// Asks all of it to end, in order.
    ///
    /// # Errors
    /// When something does not end in order.
    pub async fn stop(mut self) -> Result<()> {
        self.east.stop().await?;
        self.west.stop().await?;
        self.controller.stop().await
    }

    /// Lets all of it live on when this process ends.
    pub async fn keep_running(self) {
        self.east.keep_running().await;
        self.west.keep_running().await;
        self.controller.keep_running().await;
    }
}
