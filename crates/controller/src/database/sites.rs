//! Sites.

use domain::name::Name;
use domain::site::SiteKind;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::lookup::{self, Noun};
use super::{
    Database, DatabaseError, Result, audit, count, microseconds, name_taken, nonsense, uuid_of,
};

/// A stored site, with what it has.
#[derive(Debug, FromRow)]
pub struct SiteRow {
    id: String,
    name: String,
    kind: String,
    description: String,
    clouds: u32,
    hosts: u32,
    machines: u32,
}

impl SiteRow {
    /// The site's id.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn id(&self) -> Result<Uuid> {
        uuid_of(&self.id)
    }

    /// The view of the site, of whose hosts so many are connected.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn view(self, hosts_connected: u32) -> Result<api::site::Site> {
        Ok(api::site::Site {
            id: self.id()?,
            kind: self.kind.parse().map_err(|error| nonsense("a kind of site", &error))?,
            name: self.name,
            description: self.description,
            clouds: self.clouds,
            hosts: self.hosts,
            hosts_connected,
            machines: self.machines,
        })
    }
}

impl Database {
    /// All sites, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sites(&self) -> Result<Vec<SiteRow>> {
        Ok(sqlx::query_as(
            "SELECT s.id, s.name, s.kind, s.description,
                    (SELECT COUNT(*) FROM clouds c WHERE c.site_id = s.id) AS clouds,
                    (SELECT COUNT(*) FROM hosts h WHERE h.site_id = s.id) AS hosts,
                    (SELECT COUNT(*) FROM machines m JOIN hosts h ON h.id = m.host_id
                      WHERE h.site_id = s.id) AS machines
             FROM sites s ORDER BY s.name",
        )
        .fetch_all(&self.readers)
        .await?)
    }

    /// The site of this name or id.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn site(&self, reference: &str) -> Result<SiteRow> {
        let id = self.find(Noun::Site, reference).await?.to_string();
        self.sites().await?.into_iter().find(|site| site.id == id).ok_or_else(|| {
            lookup::LookupError::NotFound { noun: Noun::Site, reference: reference.to_owned() }
                .into()
        })
    }

    /// The id of the one thing that has this name or id.
    ///
    /// # Errors
    /// When there is not exactly one, or the database fails.
    pub async fn find(&self, noun: Noun, reference: &str) -> Result<Uuid> {
        lookup::find(&mut *self.readers.acquire().await?, noun, reference).await
    }

    /// The id of what an operator means by a name when they speak of a site: a
    /// bare name is the site's own, if it has one of that name.
    ///
    /// # Errors
    /// When there is not exactly one, or the database fails.
    pub async fn find_seen_from(
        &self,
        site: &api::Reference,
        noun: Noun,
        reference: &str,
    ) -> Result<Uuid> {
        match self.find(noun, &format!("{}/{reference}", site.name)).await {
            Err(DatabaseError::Lookup(lookup::LookupError::NotFound { .. })) => {
                self.find(noun, reference).await
            }
            found => found,
        }
    }

    /// Makes a site. Durable on return.
    ///
    /// # Errors
    /// When the name is taken, or the database fails.
    pub async fn create_site(
        &self,
        id: Uuid,
        name: &Name,
        kind: SiteKind,
        description: &str,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let kind = api::site::SiteKind::from(kind).as_str();
        sqlx::query("INSERT INTO sites (id, name, kind, description, created_us) VALUES ($1, $2, $3, $4, $5)")
            .bind(id.to_string())
            .bind(name.as_str())
            .bind(kind)
            .bind(description)
            .bind(microseconds(now))
            .execute(&mut *transaction)
            .await
            .map_err(name_taken)?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "site create",
            subject: name.to_string(),
            detail: format!("kind {kind}"),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Changes a site's name or description; what is none stays.
    ///
    /// # Errors
    /// When the name is taken, or the database fails.
    pub async fn update_site(
        &self,
        id: Uuid,
        name: Option<&Name>,
        description: Option<&str>,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let (before,): (String,) = sqlx::query_as("SELECT name FROM sites WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query("UPDATE sites SET name = COALESCE($2, name), description = COALESCE($3, description) WHERE id = $1")
            .bind(id.to_string())
            .bind(name.map(Name::as_str))
            .bind(description)
            .execute(&mut *transaction)
            .await
            .map_err(name_taken)?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "site update",
            subject: before,
            detail: name.map(|name| format!("renamed to {name}")).unwrap_or_default(),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a site that has neither hosts nor clouds.
    ///
    /// # Errors
    /// When something still belongs to it, or the database fails.
    pub async fn delete_site(&self, id: Uuid, actor: &str, now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        let hosts =
            count(&mut transaction, "SELECT COUNT(*) FROM hosts WHERE site_id = $1", id).await?;
        let clouds =
            count(&mut transaction, "SELECT COUNT(*) FROM clouds WHERE site_id = $1", id).await?;
        if hosts + clouds > 0 {
            return Err(DatabaseError::StillInUse(format!("{hosts} hosts and {clouds} clouds")));
        }
        let (name,): (String,) = sqlx::query_as("DELETE FROM sites WHERE id = $1 RETURNING name")
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "site delete",
            subject: name,
            detail: String::new(),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }
}
