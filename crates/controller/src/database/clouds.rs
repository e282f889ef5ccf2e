//! Clouds.

use domain::name::Name;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::lookup::{LookupError, Noun};
use super::{Database, DatabaseError, Result, audit, count, microseconds, name_taken, uuid_of};

#[derive(Debug, FromRow)]
struct CloudRow {
    id: String,
    name: String,
    description: String,
    site_id: String,
    site_name: String,
    hosts: u32,
}

impl TryFrom<CloudRow> for api::cloud::Cloud {
    type Error = DatabaseError;

    fn try_from(row: CloudRow) -> Result<Self> {
        Ok(Self {
            id: uuid_of(&row.id)?,
            name: row.name,
            site: api::Reference { id: uuid_of(&row.site_id)?, name: row.site_name },
            description: row.description,
            hosts: row.hosts,
        })
    }
}

impl Database {
    /// All clouds, by site and name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clouds(&self) -> Result<Vec<api::cloud::Cloud>> {
        let rows: Vec<CloudRow> = sqlx::query_as(
            "SELECT c.id, c.name, c.description, s.id AS site_id, s.name AS site_name,
                    (SELECT COUNT(*) FROM hosts h WHERE h.cloud_id = c.id) AS hosts
             FROM clouds c JOIN sites s ON s.id = c.site_id ORDER BY s.name, c.name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The cloud of this name or id.
    ///
    /// # Errors
    /// When there is not exactly one, or the database fails.
    pub async fn cloud(&self, reference: &str) -> Result<api::cloud::Cloud> {
        let id = self.find(Noun::Cloud, reference).await?;
        self.clouds().await?.into_iter().find(|cloud| cloud.id == id).ok_or_else(|| {
            LookupError::NotFound { noun: Noun::Cloud, reference: reference.to_owned() }.into()
        })
    }

    /// Makes a cloud. Durable on return.
    ///
    /// # Errors
    /// When the name is taken, or the database fails.
    pub async fn create_cloud(
        &self,
        id: Uuid,
        site: &api::Reference,
        name: &Name,
        description: &str,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO clouds (id, site_id, name, description, created_us) VALUES ($1, $2, $3, $4, $5)")
            .bind(id.to_string())
            .bind(site.id.to_string())
            .bind(name.as_str())
            .bind(description)
            .bind(microseconds(now))
            .execute(&mut *transaction)
            .await
            .map_err(name_taken)?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "cloud create",
            subject: format!("{}/{name}", site.name),
            detail: String::new(),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Changes a cloud's name or description; what is none stays.
    ///
    /// # Errors
    /// When the name is taken, or the database fails.
    pub async fn update_cloud(
        &self,
        cloud: &api::cloud::Cloud,
        name: Option<&Name>,
        description: Option<&str>,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE clouds SET name = COALESCE($2, name), description = COALESCE($3, description) WHERE id = $1")
            .bind(cloud.id.to_string())
            .bind(name.map(Name::as_str))
            .bind(description)
            .execute(&mut *transaction)
            .await
            .map_err(name_taken)?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "cloud update",
            subject: format!("{}/{}", cloud.site.name, cloud.name),
            detail: name.map(|name| format!("renamed to {name}")).unwrap_or_default(),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a cloud that has no hosts.
    ///
    /// # Errors
    /// When hosts still belong to it, or the database fails.
    pub async fn delete_cloud(
        &self,
        cloud: &api::cloud::Cloud,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let hosts =
            count(&mut transaction, "SELECT COUNT(*) FROM hosts WHERE cloud_id = $1", cloud.id)
                .await?;
        if hosts > 0 {
            return Err(DatabaseError::StillInUse(format!("{hosts} hosts")));
        }
        sqlx::query("DELETE FROM clouds WHERE id = $1")
            .bind(cloud.id.to_string())
            .execute(&mut *transaction)
            .await?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "cloud delete",
            subject: format!("{}/{}", cloud.site.name, cloud.name),
            detail: String::new(),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }
}
