/** Renaming of a device. Its name is published with its keys, so a new name changes the user's device list. */

export type Renaming = { readonly found: boolean; readonly changesList: boolean }

/** @param device undefined when the user has no such device */
export function decideRenaming(
  device: { readonly displayName?: string | undefined } | undefined,
  displayName: string,
): Renaming {
  return {
    found: device !== undefined,
    changesList: device !== undefined && device.displayName !== displayName,
  }
}
