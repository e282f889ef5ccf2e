//! The whole: two sites, a third place, and the network between them.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::Acceleration;
use crate::absent::absent;
use crate::image::Image;
use crate::place::Place;
use crate::root::Root;
use crate::site::{Site, SiteName};
use crate::wan::Wan;

const THIRD_PLACE: &str = "third-place";

/// Two sites and a third place, up and connected.
///
/// Only one lab runs at a time on a machine; a second waits. Dropping it kills
/// everything in it and leaves its files to look at; [`stop`](Self::stop)
/// removes the files too.
#[derive(Debug)]
pub struct Lab {
    east: Site,
    west: Site,
    annex: Site,
    third: Arc<Place>,
    wan: Arc<Wan>,
    /// None once the lab lives on without this process.
    root: Option<Arc<Root>>,
}

impl Lab {
    /// Brings a lab up for `story`. Ends and clears whatever an earlier one
    /// left, a kept one too.
    ///
    /// # Errors
    /// When this machine cannot run a lab, another lab holds it for 15 minutes,
    /// or something does not come up.
    pub async fn start(story: &str) -> Result<Self> {
        if let Some(reason) = absent() {
            anyhow::bail!("no lab can run here: {reason}");
        }
        let image = Image::ensure().await.context("build the guest's image")?;
        let acceleration = Acceleration::probe(&image).await?;
        let root = Arc::new(Root::take(story).await?);
        let lab = Self::describe(root, image, acceleration);
        lab.found().await.with_context(|| format!("start the lab for {story}"))?;
        Ok(lab)
    }

    /// Takes over the lab that an earlier run has kept; none when there is none.
    /// From now on it ends with this value, unless it is kept again. What was
    /// done to lines is not known any more, and libvirtd cannot be killed alone
    /// before its site's next power cut.
    ///
    /// # Errors
    /// When the notes of the earlier run cannot be read.
    pub async fn resume() -> Result<Option<Self>> {
        let Some((root, state)) = Root::take_over().await? else {
            return Ok(None);
        };
        let image = Image::ensure().await.context("build the guest's image")?;
        let acceleration = Acceleration::probe(&image).await?;
        let lab = Self::describe(Arc::new(root), image, acceleration);
        for (name, first) in state.alive() {
            let places: [&Place; 4] = [&lab.east, &lab.west, &lab.annex, &lab.third];
            for place in places.into_iter().filter(|place| place.name() == name) {
                place.adopt(first);
            }
        }
        Ok(Some(lab))
    }

    /// Ends whatever an earlier lab left and removes its files.
    ///
    /// # Errors
    /// When another lab holds the folder for 15 minutes, or something does not
    /// go.
    pub async fn clear() -> Result<()> {
        Root::take("clearing up").await?.clear().await
    }

    fn describe(root: Arc<Root>, image: Image, acceleration: Acceleration) -> Self {
        let third = Arc::new(root.place(THIRD_PLACE));
        let places = [SiteName::East, SiteName::West, SiteName::Annex]
            .map(|name| Arc::new(root.place(&name.to_string())));
        let wan = Arc::new(Wan::new(third.clone(), places.clone()));
        let [east, west, annex] = places;
        let site = |name, place| Site::new(name, place, &root, &wan, image.clone(), acceleration);
        Self {
            east: site(SiteName::East, east),
            west: site(SiteName::West, west),
            annex: site(SiteName::Annex, annex),
            third,
            wan,
            root: Some(root),
        }
    }

    async fn found(&self) -> Result<()> {
        let own = ["/etc/lifeboat", "/var/lib/lifeboat", "/var/log/lifeboat"];
        self.write_hosts()?;
        self.third.start(&own).await?;
        if let Some(root) = &self.root {
            root.note(&self.third)?;
        }
        self.wan.build().await?;
        tokio::try_join!(self.east.found(), self.west.found())?;
        Ok(())
    }

    /// All places know one another by name.
    fn write_hosts(&self) -> Result<()> {
        let hosts = format!(
            "127.0.0.1 localhost\n{} east\n{} west\n{} annex\n{} {THIRD_PLACE}\n",
            self.east.wan_address(),
            self.west.wan_address(),
            self.annex.wan_address(),
            self.wan.third_place_address()
        );
        let places: [&Place; 4] = [&self.east, &self.west, &self.annex, &self.third];
        for place in places {
            let path = place.outside("/etc/hosts");
            let folder = place.outside("/etc");
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(&path, &hosts))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// The site where production usually runs first.
    #[must_use]
    pub fn east(&self) -> &Site {
        &self.east
    }

    /// The site where it is recovered to.
    #[must_use]
    pub fn west(&self) -> &Site {
        &self.west
    }

    /// A second host of west, with a libvirt of its own, which is brought up when it
    /// is asked for first.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn annex(&self) -> Result<&Site> {
        if !self.annex.has_power() {
            self.annex.found().await.context("start the annex of west")?;
        }
        Ok(&self.annex)
    }

    /// The site of that name.
    #[must_use]
    pub fn site(&self, name: SiteName) -> &Site {
        match name {
            SiteName::East => &self.east,
            SiteName::West => &self.west,
            SiteName::Annex => &self.annex,
        }
    }

    /// Where a controller may run that is lost with neither site.
    #[must_use]
    pub fn third_place(&self) -> &Place {
        &self.third
    }

    /// The network between the sites and the third place.
    #[must_use]
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// Ends everything and removes the lab's files.
    ///
    /// # Errors
    /// When something does not go; then the next start clears it.
    pub async fn stop(mut self) -> Result<()> {
        tokio::try_join!(self.east.cut_power(), self.west.cut_power(), self.annex.cut_power())?;
        self.third.kill().await?;
        if let Some(root) = self.root.take() {
            root.clear().await.context("clear the lab's folder")?;
            root.release();
        }
        Ok(())
    }

    /// Lets the lab live on when this process ends, until it is taken over or
    /// another lab starts. A [`Process`](crate::Process) has to be told by
    /// itself.
    ///
    /// # Errors
    /// When a place has no power any more.
    pub async fn keep(mut self) -> Result<()> {
        let root = self.root.take();
        if let Some(root) = &root {
            root.note_kept()?;
        }
        self.east.keep_on().await?;
        self.west.keep_on().await?;
        if self.annex.has_power() {
            self.annex.keep_on().await?;
        }
        self.third.keep().await?;
        if let Some(root) = root {
            root.release();
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(root) = &self.root else {
            return;
        };
        let places: [&Place; 4] = [&self.east, &self.west, &self.annex, &self.third];
        for place in places {
            place.kill_now();
        }
        root.release();
    }
}
