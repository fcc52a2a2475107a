/**
 * Pages of `/sync`: messages and account data are read in the order of their positions, and a page ends with the item
 * that reaches a limit, so that no answer is larger than two pages. The token names that place; the next sync continues
 * there at once. What changes in the meantime has a newer position, so it comes later and is not lost. Issue 11, C3.
 */
import type { Position } from '../session.ts'

export type PageLimits = {
  readonly toDevicePerSync: number
  /** Bytes of messages in one answer, and of account data in one. */
  readonly syncPageBytes: number
}

export type PageItem = { readonly pos: Position; readonly bytes: number }

/** The position up to which a page is complete. A full page of either kind may have more behind it. */
export function completeUpTo(
  {
    messages,
    accountData,
  }: { readonly messages: readonly PageItem[]; readonly accountData: readonly PageItem[] },
  { toDevicePerSync, syncPageBytes }: PageLimits,
  endOfStream: Position,
): Position {
  const isFull = messages.length >= toDevicePerSync || bytesOf(messages) >= syncPageBytes
  const lastMessage = isFull ? messages.at(-1) : undefined
  const lastData = bytesOf(accountData) >= syncPageBytes ? accountData.at(-1) : undefined
  return Math.min(lastMessage?.pos ?? endOfStream, lastData?.pos ?? endOfStream)
}

/** The items up to the end of the page. */
export function upTo<Item extends PageItem>(items: readonly Item[], position: Position): readonly Item[] {
  return items.filter(({ pos }) => pos <= position)
}

function bytesOf(items: readonly PageItem[]): number {
  return items.reduce((sum, { bytes }) => sum + bytes, 0)
}
