-- Sends every photograph that is stored here to resad-dicom, but none of the results that come back from it.
function OnStoredInstance(instance, tags, metadata)
  if tags['Manufacturer'] ~= 'ReSAD' then
    SendToModality(instance, 'resad')
  end
end
