/** How many rows of a kind one user or device may make, whatever the store. */
export type InboxLimits = {
  readonly inboxMessages: number
  /** In characters of JSON text. */
  readonly inboxLength: number
}

export type RowLimits = InboxLimits & {
  readonly filtersPerUser: number
  readonly accountDataTypesPerUser: number
  readonly accountDataTotalBytes: number
  readonly devicesPerUser: number
}
