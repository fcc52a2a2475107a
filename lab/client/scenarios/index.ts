/** All scenarios in the order of the table. */
import type { Scenario } from '../scenario.ts'
import {
  conflictLibolm,
  corruptedStore,
  lostUploadResponse,
  restoredLibolm,
  restoredLibolmPlain,
  twoProcesses,
  wipedStore,
} from './client-state.ts'
import { crashFirstStart, crashGuarded, crashRound } from './crash.ts'
import {
  clockSetBack,
  delayedDelivery,
  forgedKey,
  forgedKeyMachine,
  malformedMessage,
  replayedFallback,
} from './hostile.ts'
import { conflictLoop, conflictLoopBare, flood, staleSyncMachine, twoTabs } from './sdk.ts'
import {
  corruptedLedger,
  restoredMachine,
  restoredMachineAlone,
  restoredOnBareServer,
  restoredOneByOne,
  restoredOnPlainServer,
  wipedMachine,
  wipedMachinePlain,
} from './sdk-state.ts'
import { serverRestored, serverRestoredLibolm } from './server-state.ts'
import {
  alwaysZero,
  alwaysZeroEverywhere,
  alwaysZeroMachine,
  fallbackUsedAgain,
  staleSync,
  twiceAndReordered,
} from './signals.ts'

export const SCENARIOS: readonly Scenario[] = [
  lostUploadResponse,
  crashFirstStart,
  crashRound,
  crashGuarded,
  restoredLibolm,
  restoredLibolmPlain,
  restoredMachine,
  restoredMachineAlone,
  restoredOnPlainServer,
  restoredOneByOne,
  restoredOnBareServer,
  corruptedStore,
  corruptedLedger,
  wipedStore,
  wipedMachine,
  wipedMachinePlain,
  twoProcesses,
  twoTabs,
  serverRestoredLibolm,
  serverRestored,
  alwaysZero,
  alwaysZeroMachine,
  alwaysZeroEverywhere,
  fallbackUsedAgain,
  staleSync,
  staleSyncMachine,
  twiceAndReordered,
  conflictLoop,
  conflictLoopBare,
  conflictLibolm,
  flood,
  forgedKey,
  forgedKeyMachine,
  malformedMessage,
  replayedFallback,
  delayedDelivery,
  clockSetBack,
]
