/** The table of endpoints. To add one, add a file to this folder and a line here. */
import type { Config } from '../../config/config.ts'
import type { Endpoint } from '../endpoint.ts'
import { getAccountData, putAccountData } from './account-data.ts'
import { accountDeactivate } from './account-deactivate.ts'
import { accountPassword } from './account-password.ts'
import { capabilities } from './capabilities.ts'
import { deleteDevices } from './delete-devices.ts'
import { deviceSigningUpload } from './device-signing-upload.ts'
import { deleteDevice, getDevice, listDevices, putDevice } from './devices.ts'
import { getFilter, postFilter } from './filter.ts'
import { keysChanges } from './keys-changes.ts'
import { keysClaim } from './keys-claim.ts'
import { keysPool } from './keys-pool.ts'
import { keysQuery } from './keys-query.ts'
import { keysReset } from './keys-reset.ts'
import { keysUpload } from './keys-upload.ts'
import { login, loginFlows } from './login.ts'
import { logout, logoutAll } from './logout.ts'
import { pushRules } from './pushrules.ts'
import { refresh } from './refresh.ts'
import { register } from './register.ts'
import { registerAvailable } from './register-available.ts'
import { roomKeysVersion } from './room-keys-version.ts'
import { sendToDevice } from './send-to-device.ts'
import { signaturesUpload } from './signatures-upload.ts'
import { sync } from './sync.ts'
import { versions } from './versions.ts'
import { whoami } from './whoami.ts'

export function clientApi(config: Config): readonly Endpoint[] {
  return [
    versions,
    ...[
      loginFlows,
      login,
      refresh,
      register,
      registerAvailable,
      logout,
      logoutAll,
      whoami,
      accountPassword,
      accountDeactivate,
    ],
    ...[listDevices, getDevice, putDevice, deleteDevice, deleteDevices],
    ...[keysUpload, keysQuery, keysClaim, keysChanges, ...keysReset(config.stableReset), keysPool],
    ...[deviceSigningUpload, signaturesUpload, roomKeysVersion],
    ...[sync, sendToDevice, postFilter, getFilter, putAccountData, getAccountData],
    ...[...pushRules, capabilities],
  ]
}
