/** All scenarios, in the order in which the table has them. */
import type { Scenario } from '../scenario.ts'
import {
  corruptedStore,
  lostUploadResponse,
  restoredLibolm,
  twoProcesses,
  wipedStore,
} from './client-state.ts'
import { crashFirstStart, crashRound } from './crash.ts'
import {
  clockSetBack,
  delayedDelivery,
  forgedKey,
  forgedKeyMachine,
  malformedMessage,
  replayedFallback,
} from './hostile.ts'
import {
  conflictLoop,
  flood,
  restoredMachine,
  restoredMachineAlone,
  restoredOnPlainServer,
  staleSyncMachine,
  twoTabs,
} from './sdk.ts'
import { serverRestored, serverRestoredLibolm } from './server-state.ts'
import { alwaysZero, alwaysZeroMachine, fallbackUsedAgain, staleSync, twiceAndReordered } from './signals.ts'

export const SCENARIOS: readonly Scenario[] = [
  lostUploadResponse,
  crashFirstStart,
  crashRound,
  restoredLibolm,
  restoredMachine,
  restoredMachineAlone,
  restoredOnPlainServer,
  corruptedStore,
  wipedStore,
  twoProcesses,
  twoTabs,
  serverRestoredLibolm,
  serverRestored,
  alwaysZero,
  alwaysZeroMachine,
  fallbackUsedAgain,
  staleSync,
  staleSyncMachine,
  twiceAndReordered,
  conflictLoop,
  flood,
  forgedKey,
  forgedKeyMachine,
  malformedMessage,
  replayedFallback,
  delayedDelivery,
  clockSetBack,
]
